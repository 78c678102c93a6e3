"""Reads a static pod's manifest: what its etcd is started with, word by word.

Owns where a pod says so: its container's `command`, `args` and `env`. Where the pod's paths lie on
the host is in `pods`.
"""

from __future__ import annotations

from collections.abc import Iterator

from ruamel.yaml.nodes import MappingNode, ScalarNode

from tasks.config.launch import Given, Launch, NotUnderstood
from tasks.config.scalars import compose, place_of, text_slots
from tasks.config.trees import get, items, text_of
from tasks.model.member_settings import Notice, TextFile


def read_manifest(file: TextFile) -> Launch:
    """Tell what a manifest starts; what could not be understood is among the faults."""
    try:
        container = find_container(file)
        words = tuple(_words(file, container))
        variables = dict(_variables(file, container))
    except NotUnderstood as error:
        return Launch(faults=(error.notice,))
    # Kubernetes puts $(NAME) in; kubeadm and others that are known write none.
    faults = tuple(
        Notice(word.place, f"what {word.text!r} becomes cannot be told; write the value itself")
        for word in (*words, *variables.values())
        if "$(" in word.text
    )
    return Launch(words, variables, faults)


def find_container(file: TextFile) -> MappingNode:
    """Get the container that is etcd's; raises NotUnderstood."""
    root = compose(file.path, file.text)
    spec = get(root, "spec")
    listed = get(spec, "containers")
    containers = [each for each in items(listed) if isinstance(each, MappingNode)]
    named = [each for each in containers if text_of(get(each, "name")) == "etcd"]
    if len(named or containers) != 1:
        place = place_of(file.path, listed or root)
        raise NotUnderstood(place, "it has no container of the name etcd, or several")
    return (named or containers)[0]


def _words(file: TextFile, container: MappingNode) -> Iterator[Given]:
    command = items(get(container, "command"))
    if not command:
        said = "its container has no command, so what the image starts cannot be told"
        raise NotUnderstood(place_of(file.path, container), said)
    for node in (*command, *items(get(container, "args"))):
        if not isinstance(node, ScalarNode):
            raise NotUnderstood(place_of(file.path, node), "it is no word of a command")
        place = place_of(file.path, node)
        yield Given(str(node.value), place, tuple(text_slots(file.path, node)))


def _variables(file: TextFile, container: MappingNode) -> Iterator[tuple[str, Given]]:
    if (others := get(container, "envFrom")) is not None:
        said = "what envFrom gives to etcd cannot be told; name the variables"
        raise NotUnderstood(place_of(file.path, others), said)
    for entry in items(get(container, "env")):
        name, node = text_of(get(entry, "name")), get(entry, "value")
        place = place_of(file.path, node or entry)
        if get(entry, "valueFrom") is not None:
            if name.startswith("ETCD_"):
                raise NotUnderstood(place, f"what {name} becomes cannot be told; write its value")
            continue
        slots = tuple(text_slots(file.path, node)) if node is not None else ()
        yield name, Given(text_of(node), place, slots)
