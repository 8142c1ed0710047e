//! Checks of what a get answers.

use super::{Check, Ctx, Needs, ensure, pattern};
use crate::store::{ByteRange, PART_BYTES_MAX};

pub(super) const CHECKS: &[Check] = &[
    Check { name: "put_then_get", needs: Needs::Nothing, run: |ctx| Box::pin(put_then_get(ctx)) },
    Check { name: "ranged_get", needs: Needs::Nothing, run: |ctx| Box::pin(ranged_get(ctx)) },
    Check { name: "tail_get", needs: Needs::Nothing, run: |ctx| Box::pin(tail_get(ctx)) },
    Check { name: "zero_length_range", needs: Needs::Nothing, run: |ctx| Box::pin(zero_length_range(ctx)) },
    Check { name: "range_past_the_end", needs: Needs::Nothing, run: |ctx| Box::pin(range_past_the_end(ctx)) },
    Check { name: "empty_object", needs: Needs::Nothing, run: |ctx| Box::pin(empty_object(ctx)) },
    Check { name: "large_object", needs: Needs::Nothing, run: |ctx| Box::pin(large_object(ctx)) },
    Check { name: "uneven_parts", needs: Needs::Nothing, run: |ctx| Box::pin(uneven_parts(ctx)) },
    Check {
        name: "absent_is_not_found",
        needs: Needs::Nothing,
        run: |ctx| Box::pin(absent_is_not_found(ctx)),
    },
    Check { name: "body_ends_once", needs: Needs::Nothing, run: |ctx| Box::pin(body_ends_once(ctx)) },
];

async fn put_then_get(ctx: &Ctx<'_>) -> Result<(), String> {
    // As long as the names of segments, with what else people put into paths.
    for name in
        ["a", "ltx/0/0000000000000001-0000000000000001.ltx", "with space/über+plus%2F&=?#.x", "a-b/c_d/.e"]
    {
        let bytes = pattern(1, 1000 + name.len());
        let key = ctx.seed(name, &bytes).await.map_err(|e| format!("{name:?}: {e}"))?;
        ctx.expect(&key, ByteRange::ALL, &bytes).await.map_err(|e| format!("{name:?}: {e}"))?;
    }
    Ok(())
}

async fn ranged_get(ctx: &Ctx<'_>) -> Result<(), String> {
    let bytes = pattern(2, 10_000);
    let key = ctx.seed("object", &bytes).await?;
    for (offset, len) in [(0, 1), (0, 100), (1, 1), (4_095, 4_097), (9_999, 1), (0, 10_000)] {
        ctx.expect(&key, ByteRange::at(offset, len), &bytes).await?;
    }
    for offset in [0, 1, 9_999] {
        ctx.expect(&key, ByteRange::From { offset, len: None }, &bytes).await?;
    }
    Ok(())
}

async fn tail_get(ctx: &Ctx<'_>) -> Result<(), String> {
    let bytes = pattern(3, 5_000);
    let key = ctx.seed("object", &bytes).await?;
    for n in [1, 16, 4_999, 5_000, 5_001, u64::MAX] {
        ctx.expect(&key, ByteRange::Tail(n), &bytes).await?;
    }
    Ok(())
}

async fn zero_length_range(ctx: &Ctx<'_>) -> Result<(), String> {
    let bytes = pattern(4, 100);
    let key = ctx.seed("object", &bytes).await?;
    for range in [ByteRange::at(0, 0), ByteRange::at(50, 0), ByteRange::at(100, 0), ByteRange::Tail(0)] {
        ctx.expect(&key, range, &bytes).await?;
    }
    Ok(())
}

async fn range_past_the_end(ctx: &Ctx<'_>) -> Result<(), String> {
    let bytes = pattern(5, 100);
    let key = ctx.seed("object", &bytes).await?;
    for (offset, len) in [(90, 11), (99, u64::MAX), (100, 1), (101, 1), (1 << 40, 10)] {
        ctx.expect(&key, ByteRange::at(offset, len), &bytes).await?;
    }
    ctx.expect(&key, ByteRange::From { offset: 101, len: None }, &bytes).await
}

async fn empty_object(ctx: &Ctx<'_>) -> Result<(), String> {
    let key = ctx.seed("object", &[]).await?;
    for range in [ByteRange::ALL, ByteRange::Tail(10), ByteRange::at(0, 10)] {
        ctx.expect(&key, range, &[]).await?;
    }
    let listed = ctx.list_all("", 10).await?;
    ensure(listed.len() == 1 && listed[0].len == 0, || format!("it is listed as {listed:?}"))
}

async fn large_object(ctx: &Ctx<'_>) -> Result<(), String> {
    let bytes = pattern(6, ctx.options.large_bytes);
    let key = ctx.seed("object", &bytes).await?;
    ctx.expect(&key, ByteRange::ALL, &bytes).await?;
    let part = PART_BYTES_MAX as u64;
    // Across the borders of parts, where a multipart store would lose or repeat bytes.
    for (offset, len) in [(part - 1, 2), (part, part), (part / 2, 2 * part)] {
        ctx.expect(&key, ByteRange::at(offset, len), &bytes).await?;
    }
    ctx.expect(&key, ByteRange::Tail(part + 1), &bytes).await
}

async fn uneven_parts(ctx: &Ctx<'_>) -> Result<(), String> {
    let key = ctx.key("object");
    let lens = [1, 0, 700_001, 3, PART_BYTES_MAX, 0, 17];
    let bytes = pattern(7, lens.iter().sum());
    let put = async {
        let mut body = ctx.store.put(&key, ctx.create()).await?;
        let mut at = 0;
        for len in lens {
            body.write(bytes[at..at + len].to_vec()).await?;
            at += len;
        }
        body.commit().await
    };
    put.await.map_err(|e| format!("put in parts of {lens:?} bytes: {e}"))?;
    ctx.expect(&key, ByteRange::ALL, &bytes).await
}

async fn absent_is_not_found(ctx: &Ctx<'_>) -> Result<(), String> {
    ctx.expect_absent(&ctx.key("nothing/like/it"), "of what never was").await?;
    ctx.seed("dir/object", b"x").await?;
    // Neither a directory, nor a part of a name, nor something below an object is an object.
    for name in ["dir", "dir/obj", "dir/object2", "dir/object/below"] {
        ctx.expect_absent(&ctx.key(name), &format!("of {name} beside dir/object")).await?;
    }
    Ok(())
}

async fn body_ends_once(ctx: &Ctx<'_>) -> Result<(), String> {
    let key = ctx.seed("object", &pattern(8, 10)).await?;
    let read = async {
        let mut body = ctx.store.get(&key, ByteRange::ALL).await?;
        // Ten bytes come in ten chunks at most; a body that never ends must not hold up the rest.
        for _ in 0..10 {
            if body.next().await?.is_none() {
                break;
            }
        }
        Ok((body.next().await?.is_none(), body.remaining()))
    };
    let (stays, remaining) =
        read.await.map_err(|e: crate::store::StoreError| format!("reading past the end: {e}"))?;
    ensure(stays && remaining == 0, || format!("after the end came more, or {remaining} bytes remain"))
}
