//! Checks of what puts and deletes leave behind, and of who wins.

use super::{Check, Ctx, Needs, ensure, expect_kind, join_all, pattern};
use crate::keys::Key;
use crate::store::{ByteRange, PutBody, PutCondition, StoreError, StoreErrorKind};

pub(super) const CHECKS: &[Check] = &[
    Check { name: "create_is_refused", needs: Needs::Create, run: |ctx| Box::pin(create_is_refused(ctx)) },
    Check { name: "decided_at_commit", needs: Needs::Create, run: |ctx| Box::pin(decided_at_commit(ctx)) },
    Check { name: "one_winner", needs: Needs::Create, run: |ctx| Box::pin(one_winner(ctx)) },
    Check {
        name: "unclaimed_is_refused",
        needs: Needs::NoCreate,
        run: |ctx| Box::pin(unclaimed_is_refused(ctx)),
    },
    Check { name: "always_replaces", needs: Needs::Nothing, run: |ctx| Box::pin(always_replaces(ctx)) },
    Check {
        name: "hidden_until_commit",
        needs: Needs::Nothing,
        run: |ctx| Box::pin(hidden_until_commit(ctx)),
    },
    Check {
        name: "abort_leaves_nothing",
        needs: Needs::Nothing,
        run: |ctx| Box::pin(abort_leaves_nothing(ctx)),
    },
    Check {
        name: "drop_leaves_nothing",
        needs: Needs::Nothing,
        run: |ctx| Box::pin(drop_leaves_nothing(ctx)),
    },
    Check { name: "concurrent_puts", needs: Needs::Nothing, run: |ctx| Box::pin(concurrent_puts(ctx)) },
    Check {
        name: "delete_then_recreate",
        needs: Needs::Nothing,
        run: |ctx| Box::pin(delete_then_recreate(ctx)),
    },
    Check { name: "delete_is_exact", needs: Needs::Nothing, run: |ctx| Box::pin(delete_is_exact(ctx)) },
    Check { name: "delete_of_nothing", needs: Needs::Nothing, run: |ctx| Box::pin(delete_of_nothing(ctx)) },
];

async fn create_is_refused(ctx: &Ctx<'_>) -> Result<(), String> {
    let original = pattern(10, 500);
    let key = ctx.seed("object", &original).await?;
    // Other bytes, fewer bytes, the same bytes: the answer is the same.
    for bytes in [pattern(11, 900), Vec::new(), original.clone()] {
        let again = ctx.put(&key, PutCondition::IfAbsent, &bytes).await;
        expect_kind(again, &[StoreErrorKind::AlreadyExists], || "a second create".to_owned())?;
        ctx.expect(&key, ByteRange::ALL, &original)
            .await
            .map_err(|e| format!("the original after that: {e}"))?;
    }
    Ok(())
}

/// Two puts overlap: both begin while the key is free. The one that commits second must lose.
async fn decided_at_commit(ctx: &Ctx<'_>) -> Result<(), String> {
    let (key, first, second) = (ctx.key("object"), pattern(12, 300), pattern(13, 400));
    let begin = async |bytes| {
        let begun = ctx.begin(&key, PutCondition::IfAbsent, bytes).await;
        begun.map_err(|e| format!("beginning: {e}"))
    };
    let (slow, quick) = (begin(&first).await?, begin(&second).await?);
    quick.commit().await.map_err(|e| format!("the first commit: {e}"))?;
    let late = slow.commit().await;
    expect_kind(late, &[StoreErrorKind::AlreadyExists, StoreErrorKind::Conflict], || {
        "the second commit of two overlapping creates".to_owned()
    })?;
    ctx.expect(&key, ByteRange::ALL, &second).await
}

async fn one_winner(ctx: &Ctx<'_>) -> Result<(), String> {
    for race in 0..ctx.options.races {
        let key = ctx.key(&format!("race-{race}"));
        let bodies: Vec<_> = (0..ctx.options.racers).map(|n| pattern(n as u64 + 20, 100 + n)).collect();
        // All begin before any commits, so that those who look first all see the key free.
        let begun = join_all(bodies.iter().map(|bytes| ctx.begin(&key, PutCondition::IfAbsent, bytes))).await;
        let begun = begun.into_iter().collect::<Result<Vec<_>, _>>();
        let commits =
            begun.map_err(|e| format!("race {race}: beginning: {e}"))?.into_iter().map(|body| body.commit());
        let mut winner = None;
        for (n, outcome) in join_all(commits).await.into_iter().enumerate() {
            match outcome {
                Ok(_) => {
                    let other = winner.replace(n);
                    ensure(other.is_none(), || format!("race {race}: {other:?} and {n} both won"))?;
                }
                Err(e) if matches!(e.kind, StoreErrorKind::AlreadyExists | StoreErrorKind::Conflict) => {}
                Err(e) => return Err(format!("race {race}: contender {n} got {:?} ({e})", e.kind)),
            }
        }
        let winner = winner.ok_or_else(|| format!("race {race}: nobody won"))?;
        ctx.expect(&key, ByteRange::ALL, &bodies[winner]).await.map_err(|e| format!("race {race}: {e}"))?;
    }
    Ok(())
}

/// A store that takes the condition and ignores it is worse than one that has none.
async fn unclaimed_is_refused(ctx: &Ctx<'_>) -> Result<(), String> {
    let key = ctx.key("object");
    let put = ctx.put(&key, PutCondition::IfAbsent, b"x").await;
    expect_kind(put, &[StoreErrorKind::Unsupported], || "a create that the store does not claim".to_owned())?;
    ctx.expect_absent(&key, "after the refusal").await
}

async fn always_replaces(ctx: &Ctx<'_>) -> Result<(), String> {
    let key = ctx.key("object");
    for (seed, len) in [(30, 2_000), (31, 10), (32, 0), (33, 3_000)] {
        let bytes = pattern(seed, len);
        ctx.put(&key, PutCondition::Always, &bytes).await.map_err(|e| format!("put of {len} bytes: {e}"))?;
        ctx.expect(&key, ByteRange::ALL, &bytes).await?;
    }
    let listed = ctx.list_names("", 10).await?;
    ensure(listed == ["object"], || format!("listed: {listed:?}"))
}

async fn begun(ctx: &Ctx<'_>, key: &Key, len: usize) -> Result<Box<dyn PutBody>, String> {
    ctx.begin(key, ctx.create(), &pattern(40, len)).await.map_err(|e| format!("beginning: {e}"))
}

async fn nothing_there(ctx: &Ctx<'_>, key: &Key, when: &str) -> Result<(), String> {
    ctx.expect_absent(key, when).await?;
    let listed = ctx.list_names("", 10).await?;
    ensure(listed.is_empty(), || format!("listed {when}: {listed:?}"))
}

async fn hidden_until_commit(ctx: &Ctx<'_>) -> Result<(), String> {
    let key = ctx.key("dir/object");
    let put = begun(ctx, &key, ctx.options.large_bytes).await?;
    nothing_there(ctx, &key, "before the commit").await?;
    put.commit().await.map_err(|e| format!("commit: {e}"))?;
    ctx.expect(&key, ByteRange::ALL, &pattern(40, ctx.options.large_bytes)).await
}

async fn abort_leaves_nothing(ctx: &Ctx<'_>) -> Result<(), String> {
    let key = ctx.key("object");
    for len in [0, 100, ctx.options.large_bytes] {
        begun(ctx, &key, len).await?.abort().await.map_err(|e| format!("abort: {e}"))?;
        nothing_there(ctx, &key, "after an abort").await?;
    }
    // And the key is still free.
    ctx.seed("object", b"x").await.map(drop)
}

async fn drop_leaves_nothing(ctx: &Ctx<'_>) -> Result<(), String> {
    let key = ctx.key("object");
    for len in [0, 100, ctx.options.large_bytes] {
        drop(begun(ctx, &key, len).await?);
        nothing_there(ctx, &key, "after the body was dropped").await?;
    }
    ctx.seed("object", b"x").await.map(drop)
}

/// Puts that overlap in one directory must not get into each other's parts.
async fn concurrent_puts(ctx: &Ctx<'_>) -> Result<(), String> {
    let all: Vec<_> = (0..16).map(|n| (ctx.key(&format!("object-{n}")), pattern(50 + n, 70_000))).collect();
    let put = async |key: &Key, bytes: &[u8]| -> Result<(), StoreError> {
        let mut body = ctx.store.put(key, ctx.create()).await?;
        for part in bytes.chunks(10_000) {
            body.write(part.to_vec()).await?;
        }
        body.commit().await.map(drop)
    };
    for outcome in join_all(all.iter().map(|(key, bytes)| put(key, bytes))).await {
        outcome.map_err(|e| format!("one of 16 concurrent puts: {e}"))?;
    }
    for (key, bytes) in &all {
        ctx.expect(key, ByteRange::ALL, bytes).await.map_err(|e| format!("{key}: {e}"))?;
    }
    Ok(())
}

async fn delete(ctx: &Ctx<'_>, key: &Key) -> Result<(), String> {
    ctx.store.delete(key).await.map_err(|e| format!("delete: {e}"))
}

async fn delete_then_recreate(ctx: &Ctx<'_>) -> Result<(), String> {
    for (seed, len) in [(60, 300), (61, 200)] {
        let bytes = pattern(seed, len);
        let key = ctx.seed("dir/object", &bytes).await?;
        ctx.expect(&key, ByteRange::ALL, &bytes).await?;
        delete(ctx, &key).await?;
        nothing_there(ctx, &key, "after its deletion").await?;
    }
    Ok(())
}

async fn delete_is_exact(ctx: &Ctx<'_>) -> Result<(), String> {
    for name in ["a/1", "a/10", "a/100/x", "a/2"] {
        ctx.seed(name, name.as_bytes()).await?;
    }
    delete(ctx, &ctx.key("a/1")).await?;
    let left = ctx.list_names("", 10).await?;
    ensure(left == ["a/10", "a/100/x", "a/2"], || format!("after deleting a/1 there are {left:?}"))?;
    // A directory is no object, and deleting it deletes nothing.
    delete(ctx, &ctx.key("a/100")).await?;
    ctx.expect(&ctx.key("a/100/x"), ByteRange::ALL, b"a/100/x").await
}

async fn delete_of_nothing(ctx: &Ctx<'_>) -> Result<(), String> {
    delete(ctx, &ctx.key("never/was")).await?;
    let key = ctx.seed("object", b"x").await?;
    delete(ctx, &key).await?;
    delete(ctx, &key).await
}
