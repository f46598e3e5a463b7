"""Name data by what it is: content ids, snapshots of files, and whether they cover what is asked."""
