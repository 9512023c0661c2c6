#!/bin/sh
# What the machine of test_can.py runs: $1 is Python, $2 the repository, $3 the folder for what it has to tell.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONPATH=$2 HOME=/root PYTHONDONTWRITEBYTECODE=1 REAL_CAN=1
cd "$2" || exit
ip link set lo up
sysctl -q -w net.core.rmem_max=8388608
"$1" -m pytest -q -p no:cacheprovider --timeout 120 -rP --log-level INFO --show-capture log --basetemp /run/t tests/can/real_can.py > "$3/log" 2>&1
echo $? > "$3/code"
sync
echo o > /proc/sysrq-trigger
sleep 60
