"""What plays GitLab CE on the lab's machines: its commands, services and refusals, without its code.

Each module plays one part and names the real part it stands for. Behaviour follows the Linux package's source,
omnibus-gitlab 17.10.4+ce.0, and the published source of GitLab 17.10.
"""
