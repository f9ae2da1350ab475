"""registry-tree: shows and checks what a container registry stores on its disk.

It reads the folder of a running registry, or any copy of it (a mounted volume, a restored snapshot), and never writes
there. Symbolic links are not followed. It needs only Python 3.6 or newer and its standard library.

`cli` is the command line; `ls`, `show`, `history`, `du`, `verify` and `reclaim` are its commands. Each command has
`gather`, which returns plain data to be printed as JSON, and `render`, which turns that data into lines of text.

Sources: the layout is that of registry/storage/paths.go of GitLab's container-registry 4.15.2 and of distribution 2.8;
what a garbage collection removes is that of registry/storage/garbagecollect.go of the former.
"""
