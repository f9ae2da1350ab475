"""Output of GitLab's rake tasks, as GitLab 17.10 prints it.

Sources: doc/administration/raketasks/check.md, lib/gitlab/doctor/secrets.rb, lib/tasks/gitlab/git.rake,
lib/gitlab/verify/rake_task.rb and lib/system_check/ of GitLab.
"""

SECRETS = """\
I, [2026-11-28T03:00:00.951815 #27148]  INFO -- : Checking encrypted values in the database
I, [2026-11-28T03:00:18.677708 #27148]  INFO -- : - ApplicationSetting failures: 0
I, [2026-11-28T03:00:18.823815 #27148]  INFO -- : - Ci::Runner failures: 0
I, [2026-11-28T03:00:19.321957 #27148]  INFO -- : Total: 0 row(s) affected
I, [2026-11-28T03:00:19.322001 #27148]  INFO -- : Done!
"""
WRONG_SECRETS = """\
I, [2026-11-28T03:00:00.951815 #27148]  INFO -- : Checking encrypted values in the database
I, [2026-11-28T03:00:18.677708 #27148]  INFO -- : - ApplicationSetting failures: 0
D, [2026-11-28T03:00:18.700000 #27148] DEBUG -- : > Something went wrong for Ci::Runner[4].token: bad decrypt
I, [2026-11-28T03:00:18.823815 #27148]  INFO -- : - Ci::Runner failures: 2
D, [2026-11-28T03:00:18.823900 #27148] DEBUG -- :   - Ci::Runner[3]: token
D, [2026-11-28T03:00:18.823950 #27148] DEBUG -- :   - Ci::Runner[4]: token
I, [2026-11-28T03:00:19.321957 #27148]  INFO -- : Total: 2 row(s) affected
I, [2026-11-28T03:00:19.322001 #27148]  INFO -- : Done!
"""
FSCK = """\
Performed integrity check for gitlab-stack/acceptance
Performed integrity check for shop/web
Done
"""
WRONG_FSCK = """\
Performed integrity check for gitlab-stack/acceptance
Performed integrity check for shop/web
The following repositories reported errors:
- shop/web on default: Could not fsck repository: broken link from    tree 72fdee8b9f68d47390f2ada605905be17f08c764
               to    blob bbe52438cc34bddf2ca127d7d6275fd38e4831c6
missing blob bbe52438cc34bddf2ca127d7d6275fd38e4831c6
"""
UPLOADS = """\
Checking integrity of Uploads
- 1..1350: Failures: 0
- 1351..2743: Failures: 0
Done!
"""
WRONG_UPLOADS = """\
Checking integrity of Uploads
- 1..1350: Failures: 0
- 1351..4349: Failures: 2
  - Upload: 3573: #<Errno::ENOENT: No such file or directory @ rb_sysopen - /opt/gitlab/user-foo/project-bar/image.png>
  - Upload: 3580: Checksum mismatch
Done!
"""
WITHOUT_CHECKSUM = """\
Checking integrity of Job artifacts
- 1..1: Failures: 1
  - Job artifact: 1: Checksum missing
Done!
"""
NO_FILES = """\
Checking integrity of LFS objects
Done!
"""
NO_SUCH_TASK = """\
rake aborted!
Don't know how to build task 'gitlab:ci_secure_files:check' (See the list of available tasks with `rake --tasks`)
"""
SYSTEM = """\
Checking GitLab subtasks ...

Checking GitLab Shell ...

GitLab Shell: ... GitLab Shell version >= 14.41.0 ? ... OK (14.41.0)
Running /opt/gitlab/embedded/service/gitlab-shell/bin/gitlab-shell-check
Internal API available: OK
Redis available via internal API: OK
gitlab-shell self-check successful

Checking GitLab Shell ... Finished

Checking Gitaly ...

Gitaly: ... default ... OK

Checking Gitaly ... Finished

Checking Sidekiq ...

Sidekiq: ... Running? ... yes
Number of Sidekiq processes (cluster/worker) ... 1/1

Checking Sidekiq ... Finished

Checking Incoming Email ...

Incoming Email: ... Reply by email is disabled in config/gitlab.yml

Checking Incoming Email ... Finished

Checking LDAP ...

LDAP: ... LDAP is disabled in config/gitlab.yml

Checking LDAP ... Finished

Checking GitLab App ...

Database config exists? ... yes
All migrations up? ... yes
Database contains orphaned GroupMembers? ... no
GitLab config exists? ... yes
GitLab config up to date? ... yes
Uploads directory tmp has correct permissions? ... skipped (no tmp uploads folder yet)
Systemd unit files or init script exist? ... skipped (omnibus-gitlab has neither init script nor systemd units)
Projects have namespace: ...\x20
2/1 ... yes
3/2 ... yes
Redis version >= 6.2.14? ... yes
Ruby version >= 3.0.6 ? ... yes (3.2.5)
Active users: ... 3
Is authorized keys file accessible? ... skipped (authorized keys not enabled)
All projects are in hashed storage? ... yes

Checking GitLab App ... Finished


Checking GitLab subtasks ... Finished

"""
