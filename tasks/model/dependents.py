"""What else lists the members, and how its list changes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tasks.model.members import DesiredMember


@dataclass(frozen=True, slots=True)
class Moves:
    """Who came and who went, by client URL; `goal` are the members that there are then."""

    gone: tuple[str, ...]
    come: tuple[DesiredMember, ...]
    goal: tuple[DesiredMember, ...]

    def apply(self, urls: list[str]) -> list[str]:
        """Rewrite a list of client URLs: who comes takes the place of who went, or the end.

        A list that names neither a member nor one that went is another thing's, and stays.
        """
        known = {member.client_url for member in self.goal} | set(self.gone)
        if not known.intersection(urls):
            return urls
        waiting = [m.client_url for m in self.come if m.client_url not in urls]
        found = []
        for url in urls:
            if url not in self.gone:
                found.append(url)
            elif waiting:
                found.append(waiting.pop(0))
        return found + waiting

    def at_port(self, port: int) -> Moves:
        """Say the same of what lives on the members and is asked at another port."""

        def at(url: str) -> str:
            return f"{url.rpartition(':')[0]}:{port}"

        return Moves(
            tuple(map(at, self.gone)),
            tuple(replace(m, client_url=at(m.client_url)) for m in self.come),
            tuple(replace(m, client_url=at(m.client_url)) for m in self.goal),
        )

    def name(self, url: str) -> str:
        """Name the member at a client URL."""
        return next(m.name for m in self.goal if m.client_url == url)

    @property
    def endpoints(self) -> str:
        """All client URLs, as ETCDCTL_ENDPOINTS has them."""
        return ",".join(member.client_url for member in self.goal)
