#!/bin/bash
# Last step of the image: remove what differs from RHEL, and add what programs for RHEL expect.
set -euo pipefail

# ── Interpreters and servers that are not on the PATH of RHEL 8 ───────────────────────────────────────────────
# Red Hat's own tools use platform-python; python3 must be missing here as it is on the real machine.
mv /usr/bin/python3.11 /usr/libexec/platform-python
rm -f /usr/bin/py* /usr/bin/pdb*
find /usr /etc -xdev -type f -perm /111 -print0 |
  { xargs -0 grep --files-with-matches -I -E '^#! ?/usr/bin/(env )?python3' || true; } |
  xargs --no-run-if-empty sed -i -E '1s|^#! ?/usr/bin/(env )?python3[0-9.]*|#!/usr/libexec/platform-python|'
# Only the stand-ins use these.
mv /usr/bin/ruby3.1 /usr/libexec/lab/ruby
rm -f /usr/bin/{ruby,erb,gem,irb,rake,rdoc,ri,racc,rbs,typeprof,bundle,bundler}*
mv /usr/sbin/nginx /usr/libexec/lab/nginx
rm -rf /usr/lib/systemd/system/nginx.service /etc/systemd/system/multi-user.target.wants/nginx.service \
  /etc/nginx /etc/logrotate.d/nginx /var/www
mv /usr/bin/{runsv,runsvdir,sv,svlogd} /usr/libexec/lab/
rm -rf /usr/bin/{chpst,cpsv} /usr/sbin/{mk-runscript,runit,runsvchdir,update-service,utmpset} /etc/{runit,service,sv} \
  /etc/default/runit /usr/lib/{runit,runit-helper,lsb/init-functions.d/40-runit}
for user in runit-log _runit-log; do userdel "$user"; done

# RHEL packages that Red Hat's image does not include: packages/available installs links to these programs.
for command in git git-receive-pack git-shell git-upload-archive git-upload-pack jq; do
  mv "/usr/bin/$command" /usr/libexec/lab/
done
rm -f /usr/bin/scalar

# ── Red Hat's defaults ────────────────────────────────────────────────────────────────────────────────────────
rm -f /etc/debian_version
# A script with `time`, `[[` or `pipefail` runs differently in Debian's dash.
ln -sf bash /usr/bin/sh
ln -sf dnf-3 /usr/bin/yum
for command in needs-restarting yum-config-manager yumdownloader; do
  ln -s ../libexec/dnf-utils-3 "/usr/bin/$command"
done
ln -sf ../locale.conf /etc/default/locale
# A plugin that RHEL does not install and Debian enables: a repository of downloaded packages.
rm /etc/dnf/plugins/local.conf /usr/lib/python3/dist-packages/dnf-plugins/local.py
chmod 440 /etc/sudoers.d/00-rhel
sed -i -E \
  -e 's/^#?(SYS_[UG]ID_MIN\s+).*/\1201/' -e 's/^#?(SYS_[UG]ID_MAX\s+).*/\1999/' \
  -e 's/^#?(HOME_MODE\s+).*/\10700/' /etc/login.defs
echo 'CREATE_HOME yes' >>/etc/login.defs
sed -i 's|^SHELL=.*|SHELL=/bin/bash|' /etc/default/useradd
rm -f /usr/sbin/{adduser,addgroup,deluser,delgroup}
ln -s useradd /usr/sbin/adduser

# ── Commands that a container cannot run ──────────────────────────────────────────────────────────────────────
# swapon fails on overlayfs; on a data disk it would add swap space to the host.
for command in swapon swapoff setenforce restorecon setsebool chcon semodule selinuxenabled; do
  ln -sf ../libexec/lab/record "/usr/sbin/$command"
done
# coreutils has its own chcon, which is earlier on the PATH.
ln -sf ../libexec/lab/record /usr/bin/chcon
ln -sf ../libexec/lab/getenforce /usr/sbin/getenforce
ln -sf ../libexec/lab/udevadm /usr/sbin/udevadm
mv /usr/bin/uname /usr/libexec/lab/uname-of-host
ln -s ../libexec/lab/uname /usr/bin/uname
rm -f /usr/bin/udevadm

# cloud-init detects EC2 by DMI, which it does not read in a container, and requests a token (IMDSv2) only on EC2.
platform=/usr/lib/python3/dist-packages/cloudinit/sources/DataSourceEc2.py
sed -i '/^def identify_aws(data):$/a\    return CloudNames.AWS' "$platform"
grep -A 1 '^def identify_aws' "$platform" | grep -q 'return CloudNames.AWS'
# Its first stage would wait a minute for a DHCP response; without a client it uses the existing network.
rm -f /usr/sbin/dhclient
# These files are for Debian.
rm -f /etc/cloud/cloud.cfg.d/*dpkg*

mkdir -p /etc/pki/tls/certs /etc/pki/rpm-gpg /etc/pki/ca-trust/source/anchors /usr/share/pki/ca-trust-source/anchors
ln -sf /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt

# ── The package database ──────────────────────────────────────────────────────────────────────────────────────
# It initially contains empty packages. dnf reads $releasever from the release package. lab-base provides what the
# layers below contain; without it, no package that needs /bin/sh could be installed.
rpm --initdb
dnf -q -y --disablerepo='*' --setopt=gpgcheck=0 install /tmp/packages/*.rpm
rm -f /usr/bin/{rpmbuild,rpmspec,rpmsign,gendiff}

# ── Debian's package tools ────────────────────────────────────────────────────────────────────────────────────
rm -rf /usr/bin/{apt,dpkg,deb}* /usr/sbin/dpkg* /usr/lib/{apt,dpkg} /usr/libexec/dpkg /usr/share/{debconf,dpkg} \
  /etc/apt /etc/dpkg /etc/debconf.conf /var/lib/{apt,dpkg} /var/cache/{apt,debconf} /var/log/{apt,dpkg.log}
rm -f /usr/lib/systemd/system/{apt,dpkg}-* /etc/systemd/system/timers.target.wants/{apt,dpkg}-*

# ── Services ──────────────────────────────────────────────────────────────────────────────────────────────────
# There is no hardware and no terminal, and fstrim would trim the host's file system.
systemctl mask systemd-udevd systemd-udev-trigger systemd-modules-load systemd-timesyncd getty@tty1 console-getty \
  sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount e2scrub_all.timer e2scrub_reap \
  fstrim.timer
systemctl enable ssh chrony nm-cloud-setup.service nm-cloud-setup.timer
systemctl set-default multi-user.target
rm -rf /etc/init.d /etc/rc?.d

# Without this folder the journal is in memory, as on RHEL.
rm -rf /var/log/journal
# Each machine creates its own at first boot.
rm -f /etc/ssh/ssh_host_*
: >/etc/machine-id
