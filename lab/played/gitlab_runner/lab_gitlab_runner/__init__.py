"""What plays gitlab-runner on the lab's machines: its commands, its service and its words, without its code.

Source of behaviour and messages: gitlab-runner v17.10.1, with the docker executor for jobs.
"""
