"""gitlab-backup-volume: takes snapshots of this machine's data volume, locks them, and deletes those that have expired.

The file system is frozen while a snapshot starts, because a snapshot of a file system in use lacks files that
applications have written but the kernel has not. A frozen file system blocks every process that writes to it, even
against SIGKILL; therefore a timer of systemd that thaws it is started first. A snapshot counts as a backup only if the
file system was still frozen after AWS had accepted the request; any other one is deleted, by the next run if necessary.

`cli` is the command line and `backup` the order of events; `freezing`, `manifest`, `retention`, `ec2` and `metadata`
are what it uses. Everything that another program needs to find a backup is in the snapshots' tags (`ec2.Tag`).

It needs only Python 3.6 or newer and its standard library; the machines have no AWS CLI.
"""
