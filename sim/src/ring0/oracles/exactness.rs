//! Each transaction restores to a state that was committed, page for page.
//!
//! A replica that goes back to an older state, or to one that no commit made, restores to a
//! database that nobody ever had. A phantom is the worst of those: frames of a commit that failed
//! look like any others, and the application was told that it has not happened.

use super::super::image::Image;
use super::super::truth::Truth;

/// The name of the oracle.
pub const ORACLE: &str = "restore exactness";

/// Which committed state a restored one is, at or after `from`, which its predecessor was.
///
/// # Errors
/// When it is none of those: what it is instead.
pub fn judge(image: &Image, truth: &Truth, from: usize) -> Result<usize, String> {
    if let Some(at) = truth.find(image, from) {
        return Ok(at);
    }
    let word = if truth.is_phantom(image) {
        "a phantom commit".to_string()
    } else if let Some(at) = truth.find(image, 0) {
        format!("committed state {at}, older than state {from} before it")
    } else {
        let last = truth.last().map(|last| image.differences(last));
        format!("no committed state; against the last one: {}", last.unwrap_or_default())
    };
    Err(format!("it leads to {word}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(fills: &[u8]) -> Image {
        let bytes: Vec<u8> = fills.iter().flat_map(|fill| [*fill; 512]).collect();
        Image::of_bytes(512, &bytes, &Image::default())
    }

    #[test]
    fn each_wrong_state_is_found() {
        let mut truth = Truth::new();
        truth.pretend(image(&[1]), true);
        truth.pretend(image(&[2]), true);
        truth.pretend(image(&[9]), false);
        let says = |image: &Image, from| judge(image, &truth, from);
        assert_eq!((says(&image(&[1]), 0), says(&image(&[2]), 0)), (Ok(0), Ok(1)));
        assert!(says(&image(&[1]), 1).unwrap_err().contains("older than state 1"));
        assert!(says(&image(&[9]), 0).unwrap_err().contains("a phantom commit"));
        let none = says(&image(&[3]), 0).unwrap_err();
        assert!(none.contains("no committed state") && none.contains("1 pages differ"), "{none}");
    }
}
