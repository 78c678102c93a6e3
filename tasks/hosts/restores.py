"""Restoring a member's data on its host: made ready, put in place, run where no client is.

Nothing of a member's is deleted: what is in place is set aside, under a name that tells the run.
What is removed again are the copies of the snapshot and half-made data that runs made themselves.
"""

from __future__ import annotations

import base64
from pathlib import PurePosixPath
from shlex import quote

from tasks.hosts.batch import Command, Result
from tasks.hosts.files import CHANGED, UNCHANGED, relabel
from tasks.hosts.pods import PODS
from tasks.hosts.retirement import ASIDE, set_aside_command
from tasks.hosts.services import SystemdUnit
from tasks.model.layout import Layout
from tasks.model.member_settings import TextFile
from tasks.model.observation import ServiceState, ServiceStatus
from tasks.model.restores import MARK, RestoreHost, RestoreTools, parse_mark

READY = f"{ASIDE}restored"
"""How a directory is called in which data are made ready, after a dot or in a mount point."""
TOOLS = PurePosixPath("/var/lib/etcd-runbooks/tools")
"""Where programs are put for a restore on a host that has none to restore with."""
FIRST_PORT = 10000
"""What is added to a member's client port for etcd that no client is to reach."""
LIMIT_SECONDS = 1800
"""Etcd that is left running so, because its runner died, ends by itself."""
MOST_PORT = 65535


def isolated_unit(layout: Layout) -> SystemdUnit:
    """Name the unit that runs a member's etcd where no client reaches it."""
    return SystemdUnit(f"etcd-runbooks-isolated-{layout.client_port}.service")


def isolated_port(layout: Layout) -> int:
    """Choose its port for clients, on the loopback."""
    port = layout.client_port + FIRST_PORT
    return port if port <= MOST_PORT else port - 2 * FIRST_PORT


def see_command(layout: Layout) -> Command:
    """Tell how far a restore is on a host, and what there is to restore with."""
    unit, port = quote(isolated_unit(layout).name), isolated_port(layout)
    account = (
        'owner=$(stat -c %u:%g "$first")'
        if layout.is_pod
        else f"""account=$(systemctl show {quote(layout.service)} -p User | cut -d= -f2-)
owner=$(id -u "${{account:-root}}"):$(id -g "${{account:-root}}")"""
    )
    places = " ".join(quote(str(p)) for p in (layout.binaries, TOOLS, "/usr/local/bin", "/usr/bin"))
    script = f"""
{PODS if layout.is_pod else ""}
real=$(readlink -m {quote(str(layout.data))})
stage=$real.{READY}; if mountpoint -q "$real"; then stage=$real/{READY}; fi
first=$real; while [ ! -e "$first" ]; do first=${{first%/*}}; first=${{first:-/}}; done
echo "stage $stage"
{account}
echo "owner $owner"
[ ! -d "$real/member/wal" ] && [ ! -d "$real/member/snap" ] || echo "data yes"
for each in "marked $real" "staged $stage"; do
  file=${{each#* }}/member/{MARK}
  [ ! -f "$file" ] || echo "${{each%% *}} $(base64 -w0 < "$file")"
done
echo "size $(stat -L -c %s "$real/member/snap/db" 2>/dev/null || echo 0)"
echo "free $(df --output=avail -B1 "$first" | tail -n 1 | tr -d ' ')"
case $(systemctl show {unit} -p ActiveState) in *=active | *=activating) echo "isolated yes" ;;
  *) taken=$(ss -ltnp "sport = :{port}" | sed 1d | head -n 1)
    [ -z "$taken" ] || echo "taken $taken" ;; esac
inside=; pid=$({"own_etcd" if layout.is_pod else "true"}) || :
[ -z "$pid" ] || inside=/proc/$pid/root/usr/local/bin
for place in {places} $inside; do
  [ -x "$place/etcd" ] || continue
  version=$("$place/etcd" --version 2>/dev/null | sed -n 's/^etcd Version: //p') || :
  tool=; bumps=no
  for name in etcdutl etcdctl; do
    # One of another version may lie beside it, as after an etcd that was brought back by hand.
    own=$(ETCDCTL_API=3 "$place/$name" version 2>/dev/null | sed -n '1s/^etcd.* version: //p') || :
    [ "$own" = "$version" ] || continue
    help=$(ETCDCTL_API=3 "$place/$name" snapshot restore --help 2>/dev/null) || continue
    case $help in *--initial-cluster-token*) ;; *) continue ;; esac
    tool=$name
    case $help in *--bump-revision*) bumps=yes ;; esac
    break
  done
  echo "tools $place ${{version:--}} ${{tool:--}} $bumps"
done
"""
    return Command("see what a restore finds", script.strip())


def parse_seen(host: str, result: Result, status: ServiceStatus | None) -> RestoreHost:
    """Read the answer of `see_command`; `status` is its member's, None where nothing starts one."""
    said: dict[str, str] = {}
    tools = []
    for line in result.stdout.splitlines():
        key, _, value = line.partition(" ")
        if key == "tools":
            place, version, tool, bumps = value.split()
            blank = {"-": ""}
            tools.append(
                RestoreTools(
                    PurePosixPath(place),
                    blank.get(version, version),
                    blank.get(tool, tool),
                    bumps == "yes",
                )
            )
        else:
            said[key] = value
    marks = {key: parse_mark(base64.b64decode(said.get(key, ""))) for key in ("marked", "staged")}
    return RestoreHost(
        host=host,
        stage=PurePosixPath(said["stage"]),
        owner=said["owner"],
        has_data="data" in said,
        marked=marks["marked"],
        staged=marks["staged"],
        is_installed=status is not None,
        runs=status is not None and status.state in {ServiceState.ACTIVE, ServiceState.ACTIVATING},
        is_isolated="isolated" in said,
        port_user=said.get("taken", ""),
        free=int(said["free"]),
        data_bytes=int(said["size"]),
        tools=tuple(tools),
    )


def copy_tools_command(source: PurePosixPath) -> Command:
    """Copy etcd's programs out of its container, for when that is stopped."""
    script = f"""
install -d -m 0755 {quote(str(TOOLS))}
for name in etcd etcdutl etcdctl; do
  [ -f {quote(str(source))}/$name ] || continue
  install -m 0755 {quote(str(source))}/$name {quote(str(TOOLS))}/$name.new
  mv -fT {quote(str(TOOLS))}/$name.new {quote(str(TOOLS))}/$name
done
sync {quote(str(TOOLS))}
"""
    return Command("copy etcd's programs out of its container", script.strip())


def snapshot_path(stage: PurePosixPath) -> PurePosixPath:
    """Say where the snapshot is put for the tool: beside what is made ready."""
    return stage.with_name(f"{stage.name}.db")


def ready_command(
    tools: RestoreTools,
    stage: PurePosixPath,
    log: PurePosixPath | None,
    owner: str,
    words: tuple[str, ...],
    mark: TextFile,
) -> Command:
    """Restore a snapshot into a directory that nobody uses, and mark it when it is whole.

    `words` are the tool's own; `log` is the write-ahead log's directory where it is another one.
    """
    made, snapshot = quote(str(stage)), quote(str(snapshot_path(stage)))
    ready = [made] if log is None else [made, quote(str(_beside(log)))]
    wal = [] if log is None else [f"--wal-dir={_beside(log)}"]
    told = " ".join(map(quote, (*words, f"--data-dir={stage}", *wal)))
    script = f"""
rm -rf {" ".join(ready)}
said=$(ETCDCTL_API=3 {quote(str(tools.directory / tools.tool))} snapshot restore {snapshot} \
{told} 2>&1) || {{ tail -n 5 <<< "$said" >&2; exit 1; }}
chmod 0700 {" ".join(ready)}
printf %s {quote(mark.text)} > {made}/member/{MARK}
chown -R {quote(owner)} {" ".join(ready)}
sync
rm -f {snapshot}
echo {CHANGED}
"""
    return Command("restore the snapshot beside the data", script.strip())


def _beside(log: PurePosixPath) -> PurePosixPath:
    """Say where a log is made ready that is to be renamed; its directory is no mount point."""
    return log.with_name(f"{log.name}.{READY}")


def place_command(layout: Layout, stage: PurePosixPath, name: str) -> Command:
    """Set what is in place aside under `name`, and put what is ready there; the log first.

    What has been put in place already is not ready any more, and stays.
    """
    moves = []
    for directory in layout.data_directories:
        ready = stage if directory == layout.data else _beside(directory)
        aside = set_aside_command(directory, name).script
        moves.append(f"""
ready={quote(str(ready))}
if [ -e "$ready" ]; then
(
{aside}
) > /dev/null
real=$(readlink -m {quote(str(directory))})
if mountpoint -q "$real"; then
  mv -T --no-clobber "$ready/member" "$real/member"
  rmdir "$ready"
else
  [ ! -d "$real" ] || rmdir "$real"
  mv -T --no-clobber "$ready" "$real"
fi
[ ! -e "$ready" ] || {{ echo "$ready could not be put in place of $real" >&2; exit 1; }}
{relabel("real")}
sync "${{real%/*}}/"
changed={CHANGED}
fi""")
    script = f"changed={UNCHANGED}{''.join(moves)}\necho $changed"
    return Command("put what is ready in place of the data", script)


def isolate_command(
    layout: Layout, tools: RestoreTools, owner: str, words: tuple[str, ...]
) -> Command:
    """Run etcd with these words in a unit of its own, which ends by itself after half an hour."""
    unit, (uid, _, gid) = isolated_unit(layout), owner.partition(":")
    told = " ".join(map(quote, words))
    script = f"""
{_end(unit)}
systemd-run --quiet --unit={quote(unit.name)} --uid={uid} --gid={gid} \
--property=LimitNOFILE=65536 --setenv=ETCD_UNSUPPORTED_ARCH="$(uname -m | \
sed 's/aarch64/arm64/;s/x86_64//')" \
timeout {LIMIT_SECONDS} {quote(str(tools.directory / "etcd"))} {told} >&2
echo {CHANGED}
"""
    return Command("run etcd where no client reaches it", script.strip())


def hasten_command(layout: Layout) -> Command:
    """Let a unit that is to be stopped end at once: the write-ahead log makes that safe.

    A leader whose followers are stopped with it would seek a successor for 7 s. A static pod's API
    server goes first, so that its etcd ends by itself.
    """
    name = quote(layout.service)
    script = (
        ":"
        if layout.is_pod
        else f"systemctl stop --no-block {name} 2>/dev/null || :\n"
        f"systemctl kill --signal=KILL {name} 2>/dev/null || :"
    )
    return Command("end etcd at once", script)


def end_isolated_command(layout: Layout) -> Command:
    """End what `isolate_command` started, at once: the write-ahead log makes that safe."""
    return Command("end etcd where no client reaches it", _end(isolated_unit(layout)))


def isolated_words_command(unit: SystemdUnit) -> Command:
    """Tell what an isolated etcd logged last; systemd forgets such a unit when it ends."""
    script = f"journalctl --no-pager --output=cat --lines=200 --unit={quote(unit.name)}"
    return Command("last words of the isolated etcd", script)


def _end(unit: SystemdUnit) -> str:
    name = quote(unit.name)
    return (
        f"systemctl kill --signal=KILL {name} 2>/dev/null || :\n"
        f"systemctl stop {name} 2>/dev/null || :\n"
        f"systemctl reset-failed {name} 2>/dev/null || :"
    )


def mark_command(layout: Layout, mark: TextFile) -> Command:
    """Write the mark of data in place anew, whole or not at all."""
    place = quote(str(layout.data / "member" / MARK))
    script = f"""
printf %s {quote(mark.text)} > {place}.new
chown --reference={place} {place}.new
sync {place}.new
mv -fT {place}.new {place}
echo {CHANGED}
"""
    return Command("mark the data as opened", script.strip())


def log_command(layout: Layout, tail_mebibytes: int) -> Command:
    """Tell how the two newest segments of a member's write-ahead log begin and end.

    The older one first: name, bytes, where the end begins, and both parts. Etcd makes a segment as
    long as it may become, so that zeros follow its last record.
    """
    directory = quote(str(layout.wal or layout.data / "member" / "wal"))
    script = f"""
[ -d {directory} ] || exit 0
cd {directory}
part() {{ dd if="$file" bs=1048576 skip="$1" count="$2" 2>/dev/null; }}
for file in $(ls *.wal 2>/dev/null | sort | tail -n 2); do
  size=$(stat -c %s "$file"); end=$(((size + 1048575) / 1048576))
  while [ $end -gt 0 ] && [ "$(part $((end - 1)) 1 | tr -d '\\0' | head -c 1 | wc -c)" = 0 ]; do
    end=$((end - 1))
  done
  start=$((end > {tail_mebibytes} ? end - {tail_mebibytes} : 0))
  echo "$file $size $((start * 1048576)) $(head -c 65536 "$file" | gzip -1 | base64 -w0)" \
    "$(part $start $((end - start)) | gzip -1 | base64 -w0)"
done
"""
    return Command("read the end of the write-ahead log", script.strip())


def copy_data_command(layout: Layout, copy: PurePosixPath) -> Command:
    """Copy a stopped member's data beside them; the log comes into the copy."""
    data, made = quote(str(layout.data)), quote(str(copy))
    log = "" if layout.wal is None else f"\ncp -aT {quote(str(layout.wal))} {made}/member/wal"
    script = f"""
rm -rf {made}
install -d -m 0700 {made}
cp -aT --reflink=auto {data}/member {made}/member{log}
rm -f {made}/member/{MARK}
chown --reference="$(readlink -m {data}/member)" {made}
echo {CHANGED}
"""
    return Command("copy the survivor's data", script.strip())


def extend_log_command(
    copy: PurePosixPath, segment: str, offset: int, size: int, frame: str
) -> Command:
    """Cut a segment of the copy's log after its last whole record, and append one (base64)."""
    file = quote(str(copy / "member" / "wal" / segment))
    script = f"""
truncate -s {offset} {file}
printf %s {frame} | base64 -d >> {file}
[ "$(stat -c %s {file})" -ge {size} ] || truncate -s {size} {file}
echo {CHANGED}
"""
    return Command("let all of the copy's log count", script.strip())


def end_gracefully_command(layout: Layout) -> Command:
    """End what `isolate_command` started, and wait: etcd writes all into its database then."""
    name = quote(isolated_unit(layout).name)
    script = f"""
systemctl stop {name}
state=$(systemctl show {name} -p ActiveState -p Result)
case $state in *=failed*) echo "etcd did not end well: $state" >&2; exit 1 ;; esac
systemctl reset-failed {name} 2>/dev/null || :
"""
    return Command("end the copy's etcd", script.strip())


def seal_command(copy: PurePosixPath, snapshot: PurePosixPath) -> Command:
    """Make a snapshot of the database of a copy whose etcd has ended: with its checksum behind it.

    Tells the file's bytes, the database's SHA-256 and the file's.
    """
    file = quote(str(snapshot))
    script = f"""
mv -fT {quote(str(copy / "member/snap/db"))} {file}
sum() {{ sha256sum < {file} | cut -c-64; }}
own=$(sum)
printf "$(sed 's/../\\\\x&/g' <<< "$own")" >> {file}
chown 0:0 {file}; chmod 0600 {file}
echo "$(stat -c %s {file}) $own $(sum)"
"""
    return Command("make a snapshot of the copy's database", script.strip())


def discard_copy_command(copy: PurePosixPath) -> Command:
    """Remove the copy of a survivor's data that this run has made."""
    return Command("remove the copy of the data", f"rm -rf {quote(str(copy))}")
