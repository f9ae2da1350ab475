"""Stand-in for GitLab CE on the lab's machines: its commands, services and errors, without its code.

Each module stands in for one part of GitLab and names it. Behaviour follows the source of the Linux package,
omnibus-gitlab 17.10.4+ce.0, and the published source of GitLab 17.10.
"""
