#!/bin/bash
# "Restoring a cluster" of etcd's own disaster recovery page as a person types it: a snapshot of the
# member that is left, copied to every host, restored there with the same initial cluster, started.
#
# SURVIVOR=name=address, HOSTS="name=address …" (all of them), SSH_USER, SSH_KEY, KNOWN_HOSTS, WORK.
set -euo pipefail

remote="ssh -i $SSH_KEY -o UserKnownHostsFile=$KNOWN_HOSTS -o StrictHostKeyChecking=yes -o BatchMode=yes"
copy=(rsync -a --rsync-path='sudo rsync' -e "$remote")
on() { local address=$1; shift; $remote "$SSH_USER@$address" "$@"; }
tls="--cacert=/etc/etcd/ssl/ca.pem --cert=/etc/etcd/ssl/client.pem --key=/etc/etcd/ssl/client-key.pem"
first=${SURVIVOR#*=}
cluster="" token=by-hand-$RANDOM$RANDOM
for host in $HOSTS; do cluster+="${cluster:+,}${host%%=*}=https://${host#*=}:2380"; done

echo "--- what is left"
on "$first" "sudo ETCDCTL_API=3 /usr/local/bin/etcdctl --endpoints=https://$first:2379 $tls endpoint status -w table" || :

echo "--- a snapshot of it, on every host"
on "$first" "sudo ETCDCTL_API=3 /usr/local/bin/etcdctl --endpoints=https://$first:2379 $tls snapshot save /var/lib/left.db"
"${copy[@]}" "$SSH_USER@$first:/var/lib/left.db" "$WORK/"
for host in $HOSTS; do
  [ "${host#*=}" = "$first" ] || "${copy[@]}" "$WORK/left.db" "$SSH_USER@${host#*=}:/var/lib/"
done

echo "--- stop, set aside, restore"
for host in $HOSTS; do
  on "${host#*=}" "sudo systemctl stop etcd"
done
for host in $HOSTS; do
  on "${host#*=}" "if sudo test -e /var/lib/etcd/default.etcd; then \
    sudo mv /var/lib/etcd/default.etcd /var/lib/etcd/left-$RANDOM$RANDOM; fi"
  on "${host#*=}" "sudo ETCDCTL_API=3 /usr/local/bin/etcdutl snapshot restore /var/lib/left.db \
    --name=${host%%=*} --initial-cluster=$cluster --initial-cluster-token=$token \
    --initial-advertise-peer-urls=https://${host#*=}:2380 --data-dir=/var/lib/etcd/default.etcd" 2>/dev/null
  on "${host#*=}" "sudo chown -R etcd:etcd /var/lib/etcd/default.etcd; sudo rm /var/lib/left.db"
done

echo "--- start"
for host in $HOSTS; do
  on "${host#*=}" "sudo systemctl start --no-block etcd"
done
for host in $HOSTS; do
  until on "$first" "sudo ETCDCTL_API=3 /usr/local/bin/etcdctl --endpoints=https://${host#*=}:2379 $tls endpoint health"; do
    sleep 0.2
  done
done
