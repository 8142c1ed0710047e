//! End to end.
mod crash;
mod harmless;
mod hostile;
mod status;
mod trouble;
