"""Settings' files in all the ways in which they can be written, drawn by hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from tasks.model.member_settings import SettingsFiles, TextFile, variable_name

UNIT, CONF = "/etc/systemd/system/etcd.service", "/etc/etcd.conf"
MANIFEST = "/etc/kubernetes/manifests/etcd.yaml"
NAMES = ("name", "data-dir", "wal-dir", "listen-client-urls", "initial-cluster", "metrics")
VALUES = st.text("ab09:/.,=-_ %$'\"\\#;`~[]{}é", min_size=1, max_size=12)
PLAIN = st.text("ab09:/.,=-_", min_size=1, max_size=12).filter(lambda text: text[0] not in "-=")


def of_unit(unit: str, conf: str | None = None) -> SettingsFiles:
    """Make a member's files."""
    further = (TextFile(CONF, conf),) if conf is not None else ()
    return SettingsFiles("etcd.service", "node1", (TextFile(UNIT, unit),), further)


def of_manifest(text: str) -> SettingsFiles:
    """Make the same of a member that is a static pod."""
    return SettingsFiles("", "node1", (), (), TextFile(MANIFEST, text))


def escaped(text: str, special: str) -> str:
    """Put a backslash before what is special."""
    return "".join(f"\\{c}" if c in special else c for c in text)


@st.composite
def environment_files(draw: st.DrawFn) -> SettingsFiles:
    """Draw an EnvironmentFile with all that systemd lets stand in one."""
    lines = []
    for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=8)):
        value = draw(VALUES)
        form = draw(st.sampled_from(("'", '"', "", "plain", "continued", "parts")))
        said = {
            '"': '"' + escaped(value, '"\\`$') + '"',
            "'": "'" + value.replace("'", "") + "'",
            "": escaped(value, "".join(sorted(set(value)))),
            "plain": draw(PLAIN),
            "continued": draw(PLAIN) + "\\\n" + draw(PLAIN),
            "parts": f"'{draw(PLAIN)}' \"{draw(PLAIN)}\"",
        }[form]
        blanks = draw(st.sampled_from(("", " ", "\t")))
        lines.append(f"{blanks}{variable_name(name)}{blanks}={blanks}{said}{blanks}")
        lines += draw(
            st.lists(st.sampled_from(("", "# ETCD_NAME=x", "; y", "[Member]", "export A=b", "B=c")))
        )
    end = draw(st.sampled_from(("\n", "\r\n")))
    text = end.join(lines) + draw(st.sampled_from(("", end)))
    return of_unit(f"[Service]\nEnvironmentFile={CONF}\nExecStart=/usr/bin/etcd\n", text)


@st.composite
def flag_units(draw: st.DrawFn) -> SettingsFiles:
    """Draw a unit whose flags are written in all ways, some of them as variables."""
    words, variables = ["/usr/bin/etcd"], []
    for number, name in enumerate(draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6))):
        value = draw(VALUES).replace("%", "%%").replace("$", "$$")
        dashes = draw(st.sampled_from(("-", "--")))
        form = draw(st.sampled_from(("=", " ", "'", '"', "${}", "$")))
        quoted = '"' + escaped(value, '"\\') + '"'
        plain = draw(PLAIN)
        words.append(
            {
                "=": f"{dashes}{name}={plain}",
                " ": f"{dashes}{name} {plain}",
                "'": f"{dashes}{name}='{escaped(value, chr(39) + chr(92))}'",
                '"': f'"{dashes}{name}={escaped(value, chr(34) + chr(92))}"',
                "${}": f"{dashes}{name}=${{V{number}}}",
                "$": f"$V{number}",
            }[form]
        )
        held = f"{dashes}{name}={plain}" if form == "$" else value.replace("$$", "$")
        if form.startswith("$"):
            quoted = '"' + escaped(f"V{number}={held}", '"\\') + '"'
            variables.append(f"Environment={quoted}")
    joint = draw(st.sampled_from((" ", " \\\n  ", "  \\\n# a comment\n\t")))
    lines = ["# ours", "[Unit]", "ExecStart=x", "[Service]", *variables]
    lines += [f"ExecStart={joint.join(words)}", "Restart=always", ""]
    return of_unit("\n".join(lines))


@st.composite
def settings_files(draw: st.DrawFn) -> SettingsFiles:
    """Draw a --config-file in all of YAML's ways of writing a text."""
    lines = ["# ours", "pre-vote: yes", "peer-transport-security: {cert-file: /p}  # kept"]
    for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True)):
        value, plain = draw(VALUES), draw(PLAIN.filter(lambda text: text[0] in "ab/"))
        form = draw(st.sampled_from(("plain", "'", '"', "tag")))
        said = {
            "plain": "a" + plain.replace(":", "").strip("-"),
            "'": "'" + value.replace("'", "''") + "'",
            '"': '"' + escaped(value, '"\\') + '"',
            "tag": f"!!str '{plain}'",
        }[form]
        lines.append(f"{name}: {said}" + draw(st.sampled_from(("", "  # a comment"))))
    text = "\n".join(lines) + draw(st.sampled_from(("", "\n")))
    return of_unit(f"[Service]\nExecStart=/usr/bin/etcd --config-file={CONF}\n", text)


@st.composite
def manifests(draw: st.DrawFn) -> SettingsFiles:
    """Draw a pod's manifest: words in all of YAML's ways, in blocks or not, as one list or two."""
    written = []
    for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True)):
        plain, value = draw(PLAIN), draw(VALUES).replace("$", "")
        form = draw(st.sampled_from(("plain", "'", '"', "apart")))
        written += {
            "plain": [f"--{name}=a{plain.replace(',', '')}b"],
            "'": [f"'--{name}={value.replace(chr(39), chr(39) * 2)}'"],
            '"': ['"' + escaped(f"--{name}={value}", '"\\') + '"'],
            "apart": [f"--{name}", '"' + escaped(value.replace("=", ""), '"\\') + '"'],
        }[form]
    cut = draw(st.integers(0, len(written)))
    lists = {"command": ["etcd", *written[:cut]], "args": written[cut:]}
    lines = [
        "# ours",
        "kind: Pod",
        "metadata: {name: etcd}",
        "spec:",
        "  containers:",
        "  - image: x",
    ]
    for name, words in lists.items():
        is_flow = draw(st.booleans())
        if words and is_flow:
            lines.append(f"    {name}: [{', '.join(words)}] # ours")
        elif words:
            lines.append(f"    {name}:")
            lines += [f"    - {w}{draw(st.sampled_from(('', '  # ours')))}" for w in words]
    lines += ["    unknown: {Restart: 1}", "    name: etcd", "status: {}"]
    return of_manifest("\n".join(lines) + draw(st.sampled_from(("", "\n"))))
