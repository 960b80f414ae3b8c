#!/bin/bash
# Runs the broker, or the command that is given. It stands in for the entry points of Kafka's images: bitnami's
# '/entrypoint.sh /run.sh', cp-kafka's /etc/confluent/docker/run.
set -euo pipefail
case "${1:-}" in
  "" | /run.sh | /opt/bitnami/scripts/kafka/run.sh | /etc/confluent/docker/run) set -- ;;
  broker | supervise) shift; set -- "$@" ;;
  *) exec "$@" ;;
esac
# Data goes where a volume is mounted.
if [ "${KAFKA_LOG_DIRS:-}" = /var/lib/ottla ]; then
  for dir in /bitnami/kafka /var/lib/kafka/data; do
    if grep -q " $dir " /proc/self/mounts; then export KAFKA_LOG_DIRS=${dir%/data}/data; fi
  done
fi
# Properties that are mounted come first, variables win.
for file in /mnt/shared/config/server.properties /bitnami/kafka/config/server.properties /etc/kafka/server.properties; do
  [ -e "$file" ] && { set -- "$file" "$@"; break; }
done
exec /usr/bin/ottla supervise --log-format kafka "$@"
