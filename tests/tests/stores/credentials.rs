//! Where S3 credentials come from. Each source is asked by a process of its own, since most of them
//! are named by the environment.
