//! Checks of replacing an object on the condition that it is still the one that was read.

use super::{Check, Ctx, Needs, ensure, expect_kind, join_all, pattern};
use crate::keys::Key;
use crate::store::{ByteRange, PutCondition, StoreErrorKind, Version};

pub(super) const CHECKS: &[Check] = &[
    Check { name: "swap_is_exact", needs: Needs::Swap, run: |ctx| Box::pin(swap_is_exact(ctx)) },
    Check {
        name: "swap_names_its_version",
        needs: Needs::Swap,
        run: |ctx| Box::pin(swap_names_its_version(ctx)),
    },
    Check { name: "swap_of_nothing", needs: Needs::Swap, run: |ctx| Box::pin(swap_of_nothing(ctx)) },
    Check { name: "swap_of_large", needs: Needs::Swap, run: |ctx| Box::pin(swap_of_large(ctx)) },
    Check { name: "swap_has_one_winner", needs: Needs::Swap, run: |ctx| Box::pin(swap_has_one_winner(ctx)) },
    Check {
        name: "unclaimed_swap_is_refused",
        needs: Needs::NoSwap,
        run: |ctx| Box::pin(unclaimed_swap_is_refused(ctx)),
    },
];

async fn version(ctx: &Ctx<'_>, key: &Key, range: ByteRange) -> Result<Version, String> {
    let got = ctx.store.get(key, range).await.map_err(|e| format!("get {range:?}: {e}"))?;
    got.version().ok_or_else(|| format!("get {range:?} tells no version"))
}

async fn swap(ctx: &Ctx<'_>, key: &Key, from: &Version, bytes: &[u8]) -> Result<(), String> {
    let put = ctx.put(key, PutCondition::Matches(from.clone()), bytes).await;
    put.map(drop).map_err(|e| format!("a swap of the current version: {e}"))
}

async fn refused(ctx: &Ctx<'_>, key: &Key, from: &Version, what: &str) -> Result<(), String> {
    let put = ctx.put(key, PutCondition::Matches(from.clone()), &pattern(70, 70)).await;
    expect_kind(put, &[StoreErrorKind::AlreadyExists], || format!("a swap of {what}"))
}

async fn swap_is_exact(ctx: &Ctx<'_>) -> Result<(), String> {
    let key = ctx.seed("object", &pattern(71, 400)).await?;
    let first = version(ctx, &key, ByteRange::ALL).await?;
    for range in [ByteRange::at(3, 5), ByteRange::Tail(7), ByteRange::at(0, 0), ByteRange::ALL] {
        let again = version(ctx, &key, range).await?;
        ensure(again == first, || format!("get {range:?} tells {again:?} and not {first:?}"))?;
    }
    swap(ctx, &key, &first, &pattern(72, 300)).await?;
    ctx.expect(&key, ByteRange::ALL, &pattern(72, 300)).await?;
    let second = version(ctx, &key, ByteRange::ALL).await?;
    refused(ctx, &key, &first, "a version that was replaced").await?;
    ctx.expect(&key, ByteRange::ALL, &pattern(72, 300)).await?;
    // A replacement without a condition makes a new version too.
    let put = ctx.put(&key, PutCondition::Always, &pattern(73, 200)).await;
    put.map_err(|e| format!("replacing it: {e}"))?;
    refused(ctx, &key, &second, "a version that was replaced without a condition").await?;
    ctx.expect(&key, ByteRange::ALL, &pattern(73, 200)).await
}

/// What a put names is what a get would tell, if it names any.
async fn swap_names_its_version(ctx: &Ctx<'_>) -> Result<(), String> {
    let key = ctx.seed("object", b"x").await?;
    let mut at = version(ctx, &key, ByteRange::ALL).await?;
    for seed in 75..78 {
        let put = ctx.put(&key, PutCondition::Matches(at.clone()), &pattern(seed, 90)).await;
        let named = put.map_err(|e| format!("a swap of the version that the one before named: {e}"))?;
        let told = version(ctx, &key, ByteRange::ALL).await?;
        ensure(named.as_ref().is_none_or(|named| *named == told), || {
            format!("a swap named {named:?}, and a get tells {told:?}")
        })?;
        refused(ctx, &key, &at, "a version that was replaced").await?;
        at = named.unwrap_or(told);
    }
    Ok(())
}

async fn swap_of_nothing(ctx: &Ctx<'_>) -> Result<(), String> {
    let key = ctx.seed("object", b"x").await?;
    let gone = version(ctx, &key, ByteRange::ALL).await?;
    ctx.store.delete(&key).await.map_err(|e| format!("delete: {e}"))?;
    refused(ctx, &key, &gone, "a version of an object that was deleted").await?;
    ctx.expect_absent(&key, "after the refusal").await
}

/// As an upload in parts, where the store makes one of it.
async fn swap_of_large(ctx: &Ctx<'_>) -> Result<(), String> {
    let key = ctx.seed("object", b"x").await?;
    let (first, large) = (version(ctx, &key, ByteRange::ALL).await?, pattern(74, ctx.options.large_bytes));
    let how = PutCondition::Matches(first.clone());
    let late = ctx.begin(&key, how, &large).await.map_err(|e| format!("beginning: {e}"))?;
    swap(ctx, &key, &first, &large).await?;
    ctx.expect(&key, ByteRange::ALL, &large).await?;
    let kinds = [StoreErrorKind::AlreadyExists, StoreErrorKind::Conflict];
    expect_kind(late.commit().await, &kinds, || "the second of two overlapping swaps".to_owned())
}

async fn swap_has_one_winner(ctx: &Ctx<'_>) -> Result<(), String> {
    for race in 0..ctx.options.races {
        let key = ctx.seed(&format!("race-{race}"), b"x").await?;
        let how = PutCondition::Matches(version(ctx, &key, ByteRange::ALL).await?);
        let bodies: Vec<_> = (0..ctx.options.racers).map(|n| pattern(n as u64 + 80, 100 + n)).collect();
        let begun = join_all(bodies.iter().map(|bytes| ctx.begin(&key, how.clone(), bytes))).await;
        let begun = begun.into_iter().collect::<Result<Vec<_>, _>>();
        let begun = begun.map_err(|e| format!("race {race}: beginning: {e}"))?;
        let mut winners = Vec::new();
        for (n, outcome) in
            join_all(begun.into_iter().map(|body| body.commit())).await.into_iter().enumerate()
        {
            match outcome {
                Ok(_) => winners.push(n),
                Err(e) if matches!(e.kind, StoreErrorKind::AlreadyExists | StoreErrorKind::Conflict) => {}
                Err(e) => return Err(format!("race {race}: contender {n} got {:?} ({e})", e.kind)),
            }
        }
        ensure(winners.len() == 1, || format!("race {race}: {winners:?} won"))?;
        ctx.expect(&key, ByteRange::ALL, &bodies[winners[0]])
            .await
            .map_err(|e| format!("race {race}: {e}"))?;
    }
    Ok(())
}

async fn unclaimed_swap_is_refused(ctx: &Ctx<'_>) -> Result<(), String> {
    let key = ctx.seed("object", b"x").await?;
    let told = ctx.store.get(&key, ByteRange::ALL).await.map_err(|e| format!("get: {e}"))?.version();
    let how = PutCondition::Matches(told.unwrap_or(Version("*".into())));
    let put = ctx.put(&key, how, b"y").await;
    expect_kind(put, &[StoreErrorKind::Unsupported], || "a swap that the store does not claim".to_owned())?;
    ctx.expect(&key, ByteRange::ALL, b"x").await
}
