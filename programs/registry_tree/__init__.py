"""registry-tree: inspects and verifies what a container registry stores on its disk.

It reads the folder of a running registry, or any copy of it (a mounted volume, a restored snapshot), and never writes
to it. Symbolic links are not followed. It needs only Python 3.6 or newer and its standard library.

`cli` is the command line; `ls`, `show`, `history`, `du`, `verify` and `reclaim` are its commands. Each command has
`gather`, which returns plain data that can be printed as JSON, and `render`, which turns that data into lines of text.

Sources: registry/storage/paths.go of GitLab's container-registry 4.15.2 and of distribution 2.8 (the layout), and
registry/storage/garbagecollect.go of the former (what a garbage collection removes).
"""
