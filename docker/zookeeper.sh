#!/bin/bash
# Writes zoo.cfg from the variables of ZooKeeper's official image and runs the server in the foreground.
set -euo pipefail
{
  echo "dataDir=/data"
  echo "dataLogDir=/datalog"
  echo "tickTime=${ZOO_TICK_TIME:-2000}"
  echo "initLimit=${ZOO_INIT_LIMIT:-5}"
  echo "syncLimit=${ZOO_SYNC_LIMIT:-2}"
  echo "maxClientCnxns=${ZOO_MAX_CLIENT_CNXNS:-60}"
  echo "autopurge.snapRetainCount=${ZOO_AUTOPURGE_SNAPRETAINCOUNT:-3}"
  echo "autopurge.purgeInterval=${ZOO_AUTOPURGE_PURGEINTERVAL:-0}"
  echo "admin.enableServer=${ZOO_ADMINSERVER_ENABLED:-false}"
  echo "4lw.commands.whitelist=${ZOO_4LW_COMMANDS_WHITELIST:-srvr,ruok,mntr}"
  if [ -z "${ZOO_SERVERS:-}" ]; then
    echo "clientPort=2181"
  else
    for server in $ZOO_SERVERS; do echo "$server"; done
  fi
  for line in ${ZOO_CFG_EXTRA:-}; do echo "$line"; done
} > /etc/zookeeper/conf/zoo.cfg
echo "${ZOO_MY_ID:-1}" > /data/myid
[ $# -eq 0 ] || exec "$@"
exec java ${ZOO_HEAP:--Xmx256m} -cp /usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar ${JVMFLAGS:-} \
  org.apache.zookeeper.server.quorum.QuorumPeerMain /etc/zookeeper/conf/zoo.cfg
