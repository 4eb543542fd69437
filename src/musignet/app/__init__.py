"""The command `musignet`. Everything it does, a program can do with the library."""
