//! Two writers at one place in a store that keeps its conditions.

use super::{azure, put_once, s3};
use crate::rivals::{two_daemons, two_databases};

#[test]
fn of_two_daemons_on_one_replica_in_s3_one_is_fenced() {
    for begun_before in [true, false] {
        let (proxy, scene) = s3("rivals");
        two_daemons(&scene, begun_before);
        put_once(&proxy);
    }
}

#[test]
fn of_two_daemons_on_one_replica_in_azure_one_is_fenced() {
    let (proxy, scene) = azure("rivals");
    two_daemons(&scene, false);
    put_once(&proxy);
}

#[test]
fn of_two_databases_that_begin_one_replica_in_a_store_one_is_fenced() {
    for (proxy, scene) in [s3("begin"), azure("begin")] {
        two_databases(&scene);
        put_once(&proxy);
    }
}
