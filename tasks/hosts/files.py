"""Files on a host: seeing them, writing them whole or not at all, keeping what they replace.

Every write is: temporary file beside the target, mode and owner, validation, fsync, the old file
copied aside, rename, fsync of the directory. Where a name is a link, the file that it leads to is
meant; the link stays. Pairs of a pure command and a pure parser.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from shlex import quote
from typing import TYPE_CHECKING

from tasks.hosts.batch import FENCED_OUT, Command, Result
from tasks.model.observation import FileState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tasks.model.member_settings import TextFile

UNCHANGED = "unchanged"
CHANGED = "changed"


def relabel(*names: str) -> str:
    """Write the shell that gives the files in these variables the SELinux context of their place.

    A file that is made has its directory's, which need not be its own.
    """
    files = " ".join(f'"${name}"' for name in names)
    return f"if command -v restorecon >/dev/null; then restorecon {files} 2>/dev/null || :; fi"


def read_file_command(path: PurePosixPath, *, with_text: bool = True) -> Command:
    """Tell a file's mode, owner, group and SHA-256, and its text unless that is secret.

    Private keys in the text are left out: a certificate's file may hold its key, too.
    """
    target = quote(str(path))
    show = f"sed '/BEGIN .*PRIVATE KEY-/,/END .*PRIVATE KEY-/d' {target}" if with_text else ":"
    script = (
        f"[ -f {target} ] || exit 0\nstat -L -c '0%a %U %G' {target}\nsha256sum < {target}\n{show}"
    )
    return Command(f"read {path}" if with_text else f"stat {path}", script)


def parse_file(result: Result, *, with_text: bool = True) -> FileState | None:
    """Read the answer of `read_file_command`; None when there is no such file."""
    if not result.stdout.strip():
        return None
    about, digest, text = result.stdout.split("\n", 2)
    mode, owner, group = about.split(" ", 2)  # a directory service has groups with spaces
    sha256 = digest.partition(" ")[0]
    return FileState(mode, owner, group, sha256, text if with_text else None)


def write_file_command(
    path: PurePosixPath,
    content: str,
    *,
    mode: str,
    owner: str,
    group: str,
    backup: PurePosixPath,
    validate: str | None = None,
    keeps_access: bool = False,
) -> Command:
    """Make a file be exactly so; prints `changed` or `unchanged`.

    `validate` is shell that fails on a bad file "$new". A file that is replaced is first copied
    under `backup`; with `keeps_access` its mode and owner stay as they are. On failure the target
    is as it was.
    """
    access = wanted = quote(f"{mode} {owner}:{group}")
    is_so = f'[ "$(stat -c \'0%a %U:%G\' "$target")" = {wanted} ]'
    if keeps_access:
        access, is_so = f"$(stat -c '0%a %u:%g' \"$target\" 2>/dev/null || echo {wanted})", ":"
    # The kubelet reads every file of its directory that does not begin with a dot.
    # GNU cmp refuses standard input twice, so the payload is first written beside the target. It
    # comes as a here-document, which always ends a last line: head takes what was meant.
    script = f"""
target=$(readlink -m {quote(str(path))})
(umask 022; mkdir -p "${{target%/*}}/")
new=$(mktemp "${{target%/*}}/.${{target##*/}}.XXXXXXXX")
trap 'rm -f "$new"' EXIT
head -c {len(content.encode())} > "$new"
access={access}
if cmp -s "$new" "$target" && {is_so}; then
  echo {UNCHANGED}
  exit 0
fi
chmod "${{access% *}}" "$new"
chown "${{access#* }}" "$new"
{validate or ":"}
{keep_aside(path, backup)}
sync "$new"
mv -fT "$new" "$target"
{relabel("target")}
sync "${{target%/*}}/"
echo {CHANGED}
"""
    return Command(f"write {path}", script.strip(), content)


def write_text_command(
    file: TextFile, *, backup: PurePosixPath, validate: str | None = None
) -> Command:
    """Make a file that says how a member starts be exactly so, as `write_file_command` does."""
    return write_file_command(
        PurePosixPath(file.path),
        file.text,
        mode=file.mode,
        owner=file.owner,
        group=file.group,
        backup=backup,
        validate=validate,
    )


def rewrite_file_command(
    path: PurePosixPath,
    found: FileState,
    content: str,
    *,
    backup: PurePosixPath,
    validate: str | None = None,
) -> Command:
    """Give a file another content, its mode and owner as they were `found`."""
    return write_file_command(
        path,
        content,
        mode=found.mode,
        owner=found.owner,
        group=found.group,
        backup=backup,
        validate=validate,
    )


def keep_aside(path: PurePosixPath, backup: PurePosixPath) -> str:
    """Write the shell that copies an existing file under `backup`, mode and owner kept.

    The copy goes by the file's name, and is of the file also where that name is a link.
    """
    target = quote(str(path))
    copy = backup / path.relative_to("/")
    return (
        f"if [ -e {target} ]; then mkdir -p {quote(str(copy.parent))} && "
        f'cp -aT --backup=numbered "$(readlink -e {target})" {quote(str(copy))}; fi'
    )


def exchange_command(
    paths: Iterable[PurePosixPath], kept: PurePosixPath, aside: PurePosixPath | None
) -> Command:
    """Put back those of `paths` of which there is another copy under `kept`; prints which.

    What is replaced is first copied under `aside`; without one, the copy under `kept` goes. They
    have the time of now: systemd reads a unit again only when its file is newer than what it read.
    """
    names = " ".join(quote(str(path)) for path in paths)
    script = f"""
take() {{
  mkdir -p "$1${{path%/*}}"
  cp -aT --backup=numbered "$real" "$1$path"
}}
for path in {names}; do
  copy={quote(str(kept))}$path
  [ -f "$copy" ] && ! cmp -s "$copy" "$path" || continue
  real=$(readlink -m "$path")
  {"take " + quote(str(aside)) if aside else ":"}
  new=$(mktemp "${{real%/*}}/.${{real##*/}}.XXXXXXXX")
  cp -aT "$copy" "$new"
  touch "$new"
  sync "$new"
  mv -fT "$new" "$real"
  {relabel("real")}
  sync "${{real%/*}}/"
  {":" if aside else 'rm -f "$copy"'}
  echo "$path"
done
"""
    return Command("put files back", script.strip())


def upload_script(
    target: PurePosixPath, *, sha256: str, mode: str, backup: PurePosixPath, fence: str | None
) -> str:
    """Write the script that puts what is sent behind it into a file of root's, checked before.

    Says CHANGED or UNCHANGED; ends with FENCED_OUT when the fence fails: before it begins, and
    again when all has arrived, since a runner may be frozen for minutes in between.
    """
    fencing = f"( {fence}\n) </dev/null || exit {FENCED_OUT}\n" if fence else ""
    return f"""{fencing}sum() {{ sha256sum < "$1" | cut -c-64; }}
path=$(readlink -m {quote(str(target))})
if [ -O "$path" ] && [ "$(stat -c 0%a "$path")" = {mode} ] && [ "$(sum "$path")" = {sha256} ]; then
cat >/dev/null; say {UNCHANGED}; exit; fi
(umask 022; mkdir -p "${{path%/*}}/")
new=$(mktemp "$path.XXXXXXXX"); trap 'rm -f "$new"' EXIT
cat > "$new"
[ "$(sum "$new")" = {sha256} ] || {{ echo "what arrived has another SHA-256" >&2; exit 1; }}
{fencing}chmod {mode} "$new"; {keep_aside(target, backup)}
sync "$new"; mv -fT "$new" "$path"; {relabel("path")}; sync "${{path%/*}}/"; say {CHANGED}"""


def make_directory_command(path: PurePosixPath, *, mode: str, owner: str, group: str) -> Command:
    """Make a directory be there with this mode and owner; prints what changed."""
    target = quote(str(path))
    wanted = quote(f"{mode} {owner} {group}")
    script = (
        f"[ \"$(stat -L -c '0%a %U %G' {target} 2>/dev/null)\" = {wanted} ] "
        f"&& {{ echo {UNCHANGED}; exit 0; }}\n"
        f"made=$(readlink -m {target})\n"
        f'install -d -m {mode} -o {quote(owner)} -g {quote(group)} "$made"\n'
        f"{relabel('made')}\necho {CHANGED}"
    )
    return Command(f"make directory {path}", script)


def parse_change(result: Result) -> bool:
    """Whether a making command changed something."""
    return result.stdout.split()[-1:] == [CHANGED]


def find_absent_command(paths: Iterable[str]) -> Command:
    """Tell which of some files and directories are not there."""
    names = " ".join(map(quote, paths))
    script = f'for path in {names}; do [ -e "$path" ] || echo "$path"; done'
    return Command("look for files", script)


def parse_absent(result: Result) -> tuple[str, ...]:
    """Read the answer of `find_absent_command`."""
    return tuple(result.stdout.splitlines())


def directory_mode_command(path: PurePosixPath) -> Command:
    """Tell a directory's mode, owner and group."""
    return Command(f"mode of {path}", f"stat -L -c '0%a %U %G' {quote(str(path))} 2>/dev/null || :")


def parse_directory_mode(result: Result) -> str | None:
    """Read the answer of `directory_mode_command`; None when there is no such directory."""
    return result.stdout.strip() or None
