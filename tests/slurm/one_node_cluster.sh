#!/usr/bin/env bash
# A SLURM cluster of this one machine, for tests: Debian's slurm-wlm and munge, as root, without systemd.
#
#     apt-get install slurm-wlm munge
#     tests/slurm/one_node_cluster.sh start FOLDER [CPUS]     then: export SLURM_CONF=FOLDER/slurm.conf
#     tests/slurm/one_node_cluster.sh stop FOLDER
#
# Everything lies in FOLDER, nothing of /etc is changed. There is no accounting database: jobs are asked after by squeue.
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
mkdir -p "$2"
folder=$(cd "$2" && pwd) cpus=${3:-$(nproc)} host=$(hostname -s)
memory=$(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
conf=$folder/slurm.conf
export SLURM_CONF=$conf

stop() {
    local name
    for name in slurmctld slurmd munged; do
        [ ! -f "$folder/$name.pid" ] || kill "$(cat "$folder/$name.pid")" 2> /dev/null || true
    done
}

start() {
    mkdir -p "$folder/state" "$folder/spool"
    chmod 755 "$folder"
    if [ ! -f "$folder/munge.key" ]; then
        (umask 077 && head -c 1024 /dev/urandom > "$folder/munge.key")
    fi
    cat > "$conf" << END
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
SlurmctldPort=26817
SlurmdPort=26818
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=86400
KillWait=5
SchedulerParameters=batch_sched_delay=1,sched_interval=5
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
    echo "CgroupPlugin=disabled" > "$folder/cgroup.conf"
    /usr/sbin/munged --force --socket="$folder/munge.socket" --key-file="$folder/munge.key" \
        --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" --seed-file="$folder/munged.seed"
    /usr/sbin/slurmctld -f "$conf"
    /usr/sbin/slurmd -f "$conf"
    local tries
    for tries in $(seq 60); do
        if [ "$(sinfo -h -o %T 2> /dev/null)" = idle ]; then
            echo "export SLURM_CONF=$conf"
            return
        fi
        sleep 1
    done
    echo "the node is not idle after $tries seconds; see $folder/slurmctld.log and slurmd.log" >&2
    stop
    return 1
}

"$1"
