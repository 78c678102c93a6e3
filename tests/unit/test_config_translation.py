"""Settings written for the next minor version: flags, variables, keys and a manifest's words."""

from __future__ import annotations

import pytest

from tasks.config.settings import read_settings
from tasks.config.translation import count_every, translate
from tasks.model.member_settings import SettingsFiles, variable_name
from tests.unit.settings_files import CONF, of_manifest, of_unit

BASE = {"name": "m1", "data-dir": "/d"}
FORMS = ("variable", "environment", "flag", "two words", "folded", "key", "manifest")


def written(form: str, settings: dict[str, str]) -> SettingsFiles:
    """Write settings in one way, between others."""
    every = {"name": "m1", **settings, "data-dir": "/d"}
    if form == "variable":
        text = "".join(f"{variable_name(n)}={v}\n" for n, v in every.items())
        return of_unit(f"[Service]\nEnvironmentFile={CONF}\nExecStart=/usr/bin/etcd\n", text)
    if form == "environment":
        text = " ".join(f'"{variable_name(n)}={v}"' for n, v in every.items())
        return of_unit(f"[Service]\nEnvironment={text}\nExecStart=/usr/bin/etcd\n")
    if form == "key":
        text = "".join(f"{n}: {v}\n" for n, v in every.items())
        return of_unit(f"[Service]\nExecStart=/usr/bin/etcd --config-file={CONF}\n", text)
    if form == "manifest":
        words = "".join(f"    - --{n}={v}\n" for n, v in every.items())
        return of_manifest(
            "kind: Pod\nmetadata: {name: etcd}\nspec:\n  containers:\n  - name: etcd\n"
            f"    command:\n    - etcd\n{words}    image: x\n"
        )
    joint, is_ = (" ", " ") if form == "two words" else (" ", "=")
    joint = " \\\n  " if form == "folded" else joint
    words = joint.join(f"--{n}{is_}{v}" for n, v in every.items())
    return of_unit(f"[Service]\nExecStart=/usr/bin/etcd{joint}{words}\nRestart=always\n")


def values(files: SettingsFiles) -> dict[str, str]:
    """Read the values, and see that nothing is wrong with the files."""
    found = read_settings(files)
    assert not found.faults, found.faults
    return {name: setting.value for name, setting in found.items() if name != "config-file"}


CASES = [
    ((3, 5), "log-output", "stderr", {"log-outputs": "stderr"}),
    ((3, 5), "log-package-levels", "etcdserver=DEBUG", {}),
    ((3, 5), "logger", "capnslog", {"logger": "zap"}),
    ((3, 5), "experimental-backend-bbolt-freelist-type", "map",
     {"backend-bbolt-freelist-type": "map"}),
    ((3, 6), "proxy", "off", {}),
    ((3, 6), "proxy-read-timeout", "0", {}),
    ((3, 6), "v2-deprecation", "not-yet", {}),
    ((3, 6), "discovery-fallback", "proxy", {"discovery-fallback": "exit"}),
    ((3, 6), "experimental-watch-progress-notify-interval", "5s",
     {"experimental-watch-progress-notify-interval": "5s"}),
    ((3, 7), "experimental-watch-progress-notify-interval", "5s",
     {"watch-progress-notify-interval": "5s"}),
    ((3, 7), "experimental-compaction-batch-limit", "700", {"compaction-batch-limit": "700"}),
    ((3, 5), "compaction-batch-limit", "700", {"experimental-compaction-batch-limit": "700"}),
    ((3, 5), "feature-gates", "InitialCorruptCheck=true",
     {"experimental-initial-corrupt-check": "true"}),
]  # fmt: skip
SWITCHES = [
    ((3, 5), "debug", "true", {"log-level": "debug"}),
    ((3, 5), "debug", "false", {}),
    ((3, 6), "enable-v2", "false", {}),
    ((3, 6), "experimental-enable-v2v3", "/v3", {}),
    ((3, 7), "experimental-initial-corrupt-check", "true",
     {"feature-gates": "InitialCorruptCheck=true"}),
    ((3, 7), "experimental-enable-lease-checkpoint", "false",
     {"feature-gates": "LeaseCheckpoint=false"}),
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("minor", "name", "value", "becomes"), [*CASES, *SWITCHES])
def test_each_setting_in_each_form(
    form: str, minor: tuple[int, int], name: str, value: str, becomes: dict[str, str]
) -> None:
    """Value for value, all else as it was; and a second time nothing is to do."""
    is_switch = any(name == each[1] and value in {"true", "false"} for each in SWITCHES)
    if form == "two words" and is_switch:
        pytest.skip("a switch takes no word")
    if form == "key" and name == "log-output":
        pytest.skip("its successor is a list there, which is left to the operator")
    if form == "key" and name.endswith(("interval", "timeout")):
        value = value.replace("5s", "5000000000")
        becomes = {n: "5000000000ns" if n[:4] != "expe" else value for n in becomes}
    before = written(form, {name: value})
    done = translate(before, minor)
    assert done.faults == ()
    assert values(done.files) == {**BASE, **becomes}
    kept = becomes == {name: value}
    assert len(done.changes) == (0 if kept else 1), done.changes
    again = translate(done.files, minor)
    assert (again.files, again.changes) == (done.files, ())


def test_a_switch_without_a_value() -> None:
    """`--debug` alone is true."""
    unit = "[Service]\nExecStart=/usr/bin/etcd --name=m1 --enable-v2 --debug --data-dir=/d\n"
    assert values(translate(of_unit(unit), (3, 6)).files) == {**BASE, "log-level": "debug"}


@pytest.mark.parametrize("form", [f for f in FORMS if f != "two words"])
def test_several_gates_become_one_setting(form: str) -> None:
    """Beside what is there already."""
    files = written(
        form,
        {
            "experimental-initial-corrupt-check": "true",
            "feature-gates": "StopGRPCServiceOnDefrag=true",
            "experimental-enable-lease-checkpoint": "true",
        },
    )
    done = translate(files, (3, 7))
    assert done.faults == ()
    gates = "StopGRPCServiceOnDefrag=true,InitialCorruptCheck=true,LeaseCheckpoint=true"
    assert values(done.files) == {**BASE, "feature-gates": gates}


@pytest.mark.parametrize(
    ("minor", "name", "value", "said"),
    [
        ((3, 6), "proxy", "on", "makes it no member"),
        ((3, 4), "socket-reuse-port", "true", "came with 3.5"),
        ((3, 5), "feature-gates", "Other=true", "no setting of etcd 3.5 stands for it"),
        ((3, 7), "experimental-initial-corrupt-check", "$WHAT", "WHAT"),
    ],
)
def test_what_no_other_setting_stands_for_is_told_with_its_place(
    minor: tuple[int, int], name: str, value: str, said: str
) -> None:
    """Nothing is guessed."""
    done = translate(written("flag", {name: value}), minor)
    assert said in " ".join(done.faults)
    assert "/etc/systemd/system/etcd.service:2" in done.faults[0]


@pytest.mark.parametrize("form", FORMS)
def test_the_count_of_entries_is_set_in_each_form(form: str) -> None:
    """Whether it was there or not."""
    for there in ({}, {"snapshot-count": "10000"}):
        changed = count_every(written(form, there), 1)
        assert values(changed) == {**BASE, "snapshot-count": "1"}
