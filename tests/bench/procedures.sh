#!/bin/bash
# The procedures of reference/etcd-procedures.txt ("external etcd") as a person types them: one
# command after the other, one host after the other, one SSH connection for each command (their
# text shares none between commands, so there is no ControlMaster; host keys are checked).
#
# Different from the text only where following it by the letter gives no cluster: server and peer
# certificates are made (etcd.conf names them, the text never makes them), etcd runs as its own
# account, `systemctl start` does not block (Type=notify with a serial start waits for ever for
# the second member), and etcdctl speaks v3.
#
# HOSTS="name=address …", SSH_USER, SSH_KEY, KNOWN_HOSTS, BINARIES (a directory), PROGRAMS="etcd …",
# WORK (an empty directory for the keys).
set -euo pipefail

remote="ssh -i $SSH_KEY -o UserKnownHostsFile=$KNOWN_HOSTS -o StrictHostKeyChecking=yes -o BatchMode=yes"
copy=(rsync -a --rsync-path='sudo rsync' -e "$remote")
on() { local address=$1; shift; $remote "$SSH_USER@$address" "$@"; }

initial_cluster="" endpoints=""
for host in $HOSTS; do
  initial_cluster+="${initial_cluster:+,}${host%%=*}=https://${host#*=}:2380"
  endpoints+="${endpoints:+,}https://${host#*=}:2379"
done

echo "--- certificates"
cd "$WORK"
cat > ca-config.json << EOT
{
    "signing": {
        "default": {"expiry": "43800h"},
        "profiles": {
            "server": {
                "expiry": "43800h",
                "usages": ["signing", "key encipherment", "server auth", "client auth"]
            },
            "client": {
                "expiry": "43800h",
                "usages": ["signing", "key encipherment", "client auth"]
            },
            "peer": {
                "expiry": "43800h",
                "usages": ["signing", "key encipherment", "server auth", "client auth"]
            }
        }
    }
}
EOT
cat > ca-csr.json << EOT
{"CN": "etcd", "key": {"algo": "rsa", "size": 2048}}
EOT
cfssl gencert -initca ca-csr.json | cfssljson -bare ca -
cat > client.json << EOT
{"CN": "client", "key": {"algo": "ecdsa", "size": 256}}
EOT
cfssl gencert -ca=ca.pem -ca-key=ca-key.pem -config=ca-config.json -profile=client client.json \
  | cfssljson -bare client
for host in $HOSTS; do
  name=${host%%=*} address=${host#*=}
  mkdir "$name"
  for role in server peer; do
    cat > "$name/$role.json" << EOT
{"CN": "$name", "hosts": ["$name", "$address", "localhost", "127.0.0.1"],
 "key": {"algo": "ecdsa", "size": 256}}
EOT
    cfssl gencert -ca=ca.pem -ca-key=ca-key.pem -config=ca-config.json -profile=$role \
      "$name/$role.json" | cfssljson -bare "$name/$role"
  done
done

for host in $HOSTS; do
  name=${host%%=*} address=${host#*=}

  echo "--- $name: account, programs"
  on "$address" "sudo useradd --system --user-group --home-dir /var/lib/etcd --no-create-home \
    --shell /usr/sbin/nologin etcd"
  on "$address" "sudo install -d -m 0700 -o etcd -g etcd /var/lib/etcd"
  "${copy[@]}" --chown=root:root --chmod=0755 $(printf "$BINARIES/%s " $PROGRAMS) \
    "$SSH_USER@$address:/usr/local/bin/"

  echo "--- $name: certificates"
  on "$address" "sudo install -d -m 0750 -o root -g etcd /etc/etcd/ssl"
  "${copy[@]}" ca.pem client.pem client-key.pem "$name"/{server,peer}{,-key}.pem \
    "$SSH_USER@$address:/etc/etcd/ssl/"
  on "$address" "sudo bash -c 'chown etcd:etcd /etc/etcd/ssl/*.pem && chmod 600 /etc/etcd/ssl/*-key.pem'"

  echo "--- $name: configuration"
  on "$address" "sudo bash -c 'cat > /etc/systemd/system/etcd.service'" << 'EOT'
[Unit]
Description=Etcd Server
Documentation=https://github.com/marslo/mytools

[Service]
Type=notify
User=etcd
WorkingDirectory=/var/lib/etcd/
EnvironmentFile=-/etc/etcd/etcd.conf
ExecStart=/bin/bash -c "GOMAXPROCS=$(nproc) exec /usr/local/bin/etcd"
Restart=on-failure
RestartSec=5
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
EOT
  on "$address" "sudo bash -c 'cat > /etc/etcd/etcd.conf'" << EOT
ETCD_NAME="$name"
ETCD_DATA_DIR="/var/lib/etcd/default.etcd"
ETCD_LISTEN_PEER_URLS="https://0.0.0.0:2380"
ETCD_LISTEN_CLIENT_URLS="https://0.0.0.0:2379"

#[cluster]
ETCD_INITIAL_ADVERTISE_PEER_URLS="https://$address:2380"
ETCD_INITIAL_CLUSTER="$initial_cluster"
ETCD_INITIAL_CLUSTER_STATE="new"
ETCD_INITIAL_CLUSTER_TOKEN="etcd-cluster"
ETCD_ADVERTISE_CLIENT_URLS="https://$address:2379"

#[security]
ETCD_CERT_FILE="/etc/etcd/ssl/server.pem"
ETCD_KEY_FILE="/etc/etcd/ssl/server-key.pem"
ETCD_CLIENT_CERT_AUTH="true"
ETCD_TRUSTED_CA_FILE="/etc/etcd/ssl/ca.pem"
ETCD_PEER_CERT_FILE="/etc/etcd/ssl/peer.pem"
ETCD_PEER_KEY_FILE="/etc/etcd/ssl/peer-key.pem"
ETCD_PEER_CLIENT_CERT_AUTH="true"
ETCD_PEER_TRUSTED_CA_FILE="/etc/etcd/ssl/ca.pem"
EOT
done

for host in $HOSTS; do
  echo "--- ${host%%=*}: enable service"
  on "${host#*=}" "sudo systemctl daemon-reload"
  on "${host#*=}" "sudo systemctl enable --quiet etcd"
  on "${host#*=}" "sudo systemctl start --no-block etcd.service"
done

echo "--- verify"
first=${HOSTS%% *}
on "${first#*=}" "for try in \$(seq 60); do
  sudo ETCDCTL_API=3 /usr/local/bin/etcdctl --cacert /etc/etcd/ssl/ca.pem \
    --cert /etc/etcd/ssl/client.pem --key /etc/etcd/ssl/client-key.pem \
    --endpoints $endpoints endpoint health && exit; sleep 0.2
done; exit 1"
for host in $HOSTS; do
  on "${host#*=}" "sudo systemctl status --no-pager --lines=0 etcd"
done
