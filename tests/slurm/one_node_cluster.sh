#!/usr/bin/env bash
# A SLURM cluster of this one machine, for tests: Debian's slurm-wlm and munge, as root, without systemd.
#
#     apt-get install slurm-wlm munge
#     tests/slurm/one_node_cluster.sh start FOLDER [CPUS]
#     tests/slurm/one_node_cluster.sh stop FOLDER
#
# Everything lies in FOLDER, but for two links in /etc/slurm, where SLURM's commands look inside of jobs (Snakemake takes
# the variable SLURM_CONF away there). There is no accounting database: jobs are asked after by squeue.
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
mkdir -p "$2"
folder=$(cd "$2" && pwd) cpus=${3:-$(nproc)} host=$(hostname -s)
memory=$(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
conf=$folder/slurm.conf
links="slurm.conf cgroup.conf"

stop() {
    local name
    for name in slurmctld slurmd munged; do
        [ ! -f "$folder/$name.pid" ] || kill "$(cat "$folder/$name.pid")" 2> /dev/null || true
    done
    for name in $links; do
        [ "$(readlink "/etc/slurm/$name")" != "$folder/$name" ] || rm "/etc/slurm/$name"
    done
}

start() {
    local name tries
    for name in $links; do
        if [ -e "/etc/slurm/$name" ]; then
            echo "/etc/slurm/$name is there: this machine has a cluster already" >&2
            return 1
        fi
    done
    mkdir -p "$folder/state" "$folder/spool" /etc/slurm
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
    for name in $links; do
        ln -s "$folder/$name" "/etc/slurm/$name"
    done
    /usr/sbin/munged --force --socket="$folder/munge.socket" --key-file="$folder/munge.key" \
        --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" --seed-file="$folder/munged.seed"
    /usr/sbin/slurmctld -f "$conf"
    /usr/sbin/slurmd -f "$conf"
    for tries in $(seq 60); do
        if [ "$(sinfo -h -o %T 2> /dev/null)" = idle ]; then
            return
        fi
        sleep 1
    done
    echo "the node is not idle after $tries seconds; see $folder/slurmctld.log and slurmd.log" >&2
    stop
    return 1
}

"$1"
