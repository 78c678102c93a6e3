#!/bin/bash
# "Replacing a failed member" of reference/etcd-procedures.txt as a person types it: etcdctl on a
# member that works, scp and ssh to the new host, one command after the other, looking in between.
#
# Different from the text only where following it by the letter gives no member: the pairs are
# made on a machine with cfssl (as the text's bootstrap does), and the new member's etcd.conf is a
# working one's with name, addresses and the initial cluster changed.
#
# DEAD=name, NEW=name=address, HOSTS="name=address …" (the members that work), SSH_USER, SSH_KEY,
# KNOWN_HOSTS, WORK (an empty directory), CA and CA_KEY (the authority, its key in clear).
set -euo pipefail

remote="ssh -i $SSH_KEY -o UserKnownHostsFile=$KNOWN_HOSTS -o StrictHostKeyChecking=yes -o BatchMode=yes"
copy=(rsync -a --rsync-path='sudo rsync' -e "$remote")
on() { local address=$1; shift; $remote "$SSH_USER@$address" "$@"; }

first=${HOSTS%% *} first=${first#*=}
name=${NEW%%=*} address=${NEW#*=}
endpoints=""
for host in $HOSTS; do endpoints+="${endpoints:+,}https://${host#*=}:2379"; done
ctl() {
  on "$first" sudo ETCDCTL_API=3 etcdctl --endpoints="$endpoints" --cacert=/etc/etcd/ssl/ca.pem \
    --cert=/etc/etcd/ssl/client.pem --key=/etc/etcd/ssl/client-key.pem "$@"
}

echo "--- which one is it"
ctl endpoint health
ctl member list
id=$(ctl member list | grep ", $DEAD," | cut -d, -f1)
on "$first" sudo ETCDCTL_API=3 etcdctl --endpoints="https://$first:2379" \
  --cacert=/etc/etcd/ssl/ca.pem --cert=/etc/etcd/ssl/client.pem --key=/etc/etcd/ssl/client-key.pem \
  snapshot save /var/tmp/before.db

echo "--- remove it"
ctl member remove "$id"

echo "--- $name: account, programs, certificates"
on "$address" "sudo useradd --system --user-group --home-dir /var/lib/etcd --no-create-home \
  --shell /usr/sbin/nologin etcd"
on "$address" "sudo install -d -m 0700 -o etcd -g etcd /var/lib/etcd"
on "$address" "sudo mkdir -p /etc/etcd/ssl"
cd "$WORK"
"${copy[@]}" "$SSH_USER@$first:/usr/local/bin/etcd" "$SSH_USER@$first:/usr/local/bin/etcdctl" .
"${copy[@]}" --chown=root:root --chmod=0755 etcd etcdctl "$SSH_USER@$address:/usr/local/bin/"
echo '{"signing": {"default": {"expiry": "43800h", "usages":
  ["signing", "key encipherment", "server auth", "client auth"]}}}' > config.json
for role in server peer client; do
  echo "{\"CN\": \"$name\", \"hosts\": [\"$name\", \"$address\", \"localhost\", \"127.0.0.1\"],
    \"key\": {\"algo\": \"ecdsa\", \"size\": 256}}" > $role.json
  cfssl gencert -ca="$CA" -ca-key="$CA_KEY" -config=config.json $role.json | cfssljson -bare $role
done
"${copy[@]}" --chown=etcd:etcd "$CA" server.pem server-key.pem peer.pem peer-key.pem client.pem \
  client-key.pem "$SSH_USER@$address:/etc/etcd/ssl/"

echo "--- add it"
for try in 1 2 3 4 5 6 7 8; do
  ctl member add "$name" --peer-urls="https://$address:2380" && break
  sleep 2
done
cluster="$name=https://$address:2380"
for host in $HOSTS; do cluster+=",${host%%=*}=https://${host#*=}:2380"; done

echo "--- $name: etcd.conf, unit, start"
"${copy[@]}" "$SSH_USER@$first:/etc/etcd/etcd.conf" "$SSH_USER@$first:/etc/systemd/system/etcd.service" .
sed -i -e "s|^ETCD_NAME=.*|ETCD_NAME=$name|" -e "s|https://$first:|https://$address:|" \
  -e "s|^ETCD_INITIAL_CLUSTER=.*|ETCD_INITIAL_CLUSTER=$cluster|" \
  -e "s|^ETCD_INITIAL_CLUSTER_STATE=.*|ETCD_INITIAL_CLUSTER_STATE=existing|" etcd.conf
"${copy[@]}" --chown=root:root etcd.conf "$SSH_USER@$address:/etc/etcd/"
"${copy[@]}" --chown=root:root etcd.service "$SSH_USER@$address:/etc/systemd/system/"
on "$address" "sudo systemctl daemon-reload"
on "$address" "sudo systemctl enable etcd"
on "$address" "sudo systemctl start --no-block etcd"

echo "--- does it work"
endpoints+=",https://$address:2379"
until ctl endpoint health; do sleep 0.2; done
ctl member list
