//! Checks of what a list answers.

use super::{Check, Ctx, Needs, ensure, join_all, pattern};
use crate::store::ListPage;

pub(super) const CHECKS: &[Check] = &[
    Check { name: "list_pages", needs: Needs::Nothing, run: |ctx| Box::pin(list_pages(ctx)) },
    Check { name: "list_start_after", needs: Needs::Nothing, run: |ctx| Box::pin(list_start_after(ctx)) },
    Check { name: "list_order", needs: Needs::Nothing, run: |ctx| Box::pin(list_order(ctx)) },
    Check { name: "list_prefix", needs: Needs::Nothing, run: |ctx| Box::pin(list_prefix(ctx)) },
    Check { name: "list_modified", needs: Needs::Modified, run: |ctx| Box::pin(list_modified(ctx)) },
];

async fn seed_all(ctx: &Ctx<'_>, names: &[String]) -> Result<(), String> {
    let numbered: Vec<_> = names.iter().enumerate().collect();
    for some in numbered.chunks(32) {
        let seeds =
            some.iter().map(|(n, name)| async move { ctx.seed(name, &pattern(*n as u64, n % 7)).await });
        for seeded in join_all(seeds).await {
            seeded?;
        }
    }
    Ok(())
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("k{n:06}")).collect()
}

async fn list_pages(ctx: &Ctx<'_>) -> Result<(), String> {
    let names = names(ctx.options.listed_keys);
    seed_all(ctx, &names).await?;
    for limit in [usize::MAX, 1000, 97] {
        let listed = ctx.list_all("", limit).await.map_err(|e| format!("by {limit}: {e}"))?;
        ensure(listed.len() == names.len(), || {
            format!("by {limit}: {} of {} keys", listed.len(), names.len())
        })?;
        for (n, (entry, name)) in listed.iter().zip(&names).enumerate() {
            ensure(ctx.name_of(&entry.key) == *name, || {
                format!("by {limit}: {} in place of {name}", entry.key)
            })?;
            ensure(entry.len == n as u64 % 7, || {
                format!("by {limit}: {} is listed with {} bytes, has {}", entry.key, entry.len, n % 7)
            })?;
        }
    }
    // The page that holds the last key must not promise more.
    let (penultimate, last) = (&names[names.len() - 2], &names[names.len() - 1]);
    let page = page(ctx, "", Some(penultimate), 1).await?;
    let seen: Vec<_> = page.entries.iter().map(|e| ctx.name_of(&e.key)).collect();
    ensure(seen == [last.as_str()] && !page.more, || {
        format!("the last page of one holds {seen:?}, more: {}", page.more)
    })
}

async fn page(ctx: &Ctx<'_>, rest: &str, after: Option<&str>, limit: usize) -> Result<ListPage, String> {
    let after = after.map(|name| ctx.key(name));
    let listed = ctx.store.list(&format!("{}/{rest}", ctx.base), after.as_ref(), limit).await;
    listed.map_err(|e| format!("list after {after:?}: {e}"))
}

async fn list_start_after(ctx: &Ctx<'_>) -> Result<(), String> {
    seed_all(ctx, &["d/a", "d/c", "d/e/f", "d/g"].map(str::to_owned)).await?;
    let cases: [(&str, &[&str]); 9] = [
        ("d/a", &["d/c", "d/e/f", "d/g"]),
        ("d/b", &["d/c", "d/e/f", "d/g"]),
        ("d/c", &["d/e/f", "d/g"]),
        ("d/e", &["d/e/f", "d/g"]),
        ("d/e/f", &["d/g"]),
        ("d/e/z", &["d/g"]),
        ("d/g", &[]),
        // Before and behind everything that has the prefix.
        ("a", &["d/a", "d/c", "d/e/f", "d/g"]),
        ("z", &[]),
    ];
    for (after, want) in cases {
        let page = page(ctx, "d/", Some(after), 10).await?;
        let seen: Vec<_> = page.entries.iter().map(|e| ctx.name_of(&e.key)).collect();
        ensure(seen == want && !page.more, || format!("after {after}: {seen:?}, more: {}", page.more))?;
    }
    Ok(())
}

async fn list_order(ctx: &Ctx<'_>) -> Result<(), String> {
    // In the order of bytes: a walk that sorts names puts "a/x" first, one that ignores case or
    // knows languages puts "B" and "é" elsewhere.
    let sorted = ["B", "a-b", "a.b", "a/x", "a/y/z", "a0", "ab", "b/c", "z", "é"].map(str::to_owned);
    let mut shuffled = sorted.clone();
    shuffled.reverse();
    shuffled.swap(1, 6);
    seed_all(ctx, &shuffled).await?;
    for limit in [1, 3, 100] {
        let seen = ctx.list_names("", limit).await?;
        ensure(seen == sorted, || format!("by {limit}: {seen:?}, expected {sorted:?}"))?;
    }
    Ok(())
}

async fn list_prefix(ctx: &Ctx<'_>) -> Result<(), String> {
    seed_all(ctx, &["a/1", "a/10", "a/100/c", "a/2", "ab/1", "b"].map(str::to_owned)).await?;
    let cases: [(&str, &[&str]); 8] = [
        ("a/1", &["a/1", "a/10", "a/100/c"]),
        ("a/10", &["a/10", "a/100/c"]),
        ("a/1/", &[]),
        ("a/", &["a/1", "a/10", "a/100/c", "a/2"]),
        ("a", &["a/1", "a/10", "a/100/c", "a/2", "ab/1"]),
        ("a/100/", &["a/100/c"]),
        ("c", &[]),
        ("b/no/such/", &[]),
    ];
    for (rest, want) in cases {
        let seen = ctx.list_names(rest, 2).await?;
        ensure(seen == want, || format!("prefix {rest:?}: {seen:?}, expected {want:?}"))?;
    }
    let everything = ctx.store.list("", None, 1).await.map_err(|e| format!("with an empty prefix: {e}"))?;
    ensure(everything.entries.len() == 1, || "an empty prefix lists nothing".to_owned())
}

async fn list_modified(ctx: &Ctx<'_>) -> Result<(), String> {
    ctx.seed("object", b"x").await?;
    let listed = ctx.list_all("", 10).await?;
    ensure(listed.iter().all(|e| e.modified.is_some()), || "an entry without a time".to_owned())
}
