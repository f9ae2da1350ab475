"""GitLab's password rules.

Source: gitlab-org/gitlab lib/security/weak_passwords.rb and app/models/user.rb. The real list of weak passwords has
some thousand entries; this one has only the most common ones.
"""

import re

MINIMUM_LENGTH = 8
MAXIMUM_LENGTH = 128
FORBIDDEN_WORDS = ("gitlab", "devops")
MINIMUM_SUBSTRING = 4
WEAK = """
00000000 11111111 12121212 12341234 12345678 123456789 1234567890 123qweasd 1q2w3e4r 1qaz2wsx 87654321
88888888 99999999 aa123456 abc12345 abcd1234 abcdefgh asdfasdf asdfghjk baseball changeme computer football
iloveyou jennifer letmein1 passw0rd password password1 password12 password123 princess qazwsxedc qwer1234
qwerty123 qwertyui qwertyuiop starwars sunshine superman testroot trustno1 welcome1 welcome123 whatever
zaq12wsx
"""


def problems(password: str, *, name: str, username: str, email: str) -> list[str]:
    """Return GitLab's error messages about a password for this user; empty if the password is valid."""
    found = []
    if len(password) < MINIMUM_LENGTH:
        found.append(f"is too short (minimum is {MINIMUM_LENGTH} characters)")
    if len(password) > MAXIMUM_LENGTH:
        found.append(f"is too long (maximum is {MAXIMUM_LENGTH} characters)")
    if _is_weak(password, name=name, username=username, email=email):
        found.append("must not contain commonly used combinations of words and letters")
    return found


def _is_weak(password: str, *, name: str, username: str, email: str) -> bool:
    parts = [*FORBIDDEN_WORDS, *email.split("@")]
    for text in (name, username, email):
        parts += [text, *re.split(r"[^\w]|_", text)]
    lowered = password.lower()
    return lowered in WEAK.split() or any(len(part) >= MINIMUM_SUBSTRING and part.lower() in lowered for part in parts)
