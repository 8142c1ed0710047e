//! Signatures of requests: what a store of S3 or Azure checks, made by other code than the product's.
//!
//! SHA-256, HMAC and Base64 are here in their shortest form, for test helpers that sign a handful of
//! small requests; each is checked against the vectors of its standard.

use crate::http::Request;

/// An access key of S3.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct S3Key {
    /// Its public part.
    pub id: String,
    /// Its secret part.
    pub secret: String,
}

/// Signs a request with AWS signature version 4 for a service in `us-east-1`, at `at`
/// (`20260131T235959Z`). `Host` must be among its headers; it and `x-amz-*` are signed.
pub fn sign_v4(request: &mut Request, key: &S3Key, service: &str, at: &str) {
    let body_hash = hex(&sha256(&request.body));
    request.headers.set("x-amz-date", at);
    request.headers.set("x-amz-content-sha256", &body_hash);
    let mut signed: Vec<(String, &str)> = request
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
        .filter(|(name, _)| name == "host" || name.starts_with("x-amz-"))
        .collect();
    signed.sort();
    let names: Vec<&str> = signed.iter().map(|(name, _)| name.as_str()).collect();
    let names = names.join(";");
    let fields: String = signed.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let mut query: Vec<String> =
        request.query().split('&').filter(|pair| !pair.is_empty()).map(with_equals).collect();
    query.sort();
    let canonical =
        [&request.method, request.path(), &query.join("&"), &fields, &names, &body_hash].join("\n");

    let day = &at[..8];
    let scope = format!("{day}/us-east-1/{service}/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{at}\n{scope}\n{}", hex(&sha256(canonical.as_bytes())));
    let secret = format!("AWS4{}", key.secret);
    let mut signing = hmac(secret.as_bytes(), day.as_bytes());
    for part in ["us-east-1", service, "aws4_request"] {
        signing = hmac(&signing, part.as_bytes());
    }
    let signature = hex(&hmac(&signing, text.as_bytes()));
    let value = format!(
        "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
        key.id
    );
    request.headers.set("Authorization", value);
}

fn with_equals(pair: &str) -> String {
    if pair.contains('=') { pair.to_owned() } else { format!("{pair}=") }
}

/// The present second, as signature version 4 writes it.
pub fn amz_date() -> String {
    let (year, month, day, second) = now();
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// The present second, as HTTP writes it.
pub fn http_date() -> String {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    const WEEKDAYS: &str = "ThuFriSatSunMonTueWed";
    let (year, month, day, second) = now();
    let weekday = (unix_seconds() / 86400 % 7) as usize * 3;
    let month = (month - 1) as usize * 3;
    format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        &WEEKDAYS[weekday..weekday + 3],
        &MONTHS[month..month + 3],
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Year, month, day, and second of the day.
fn now() -> (u64, u64, u64, u64) {
    let seconds = unix_seconds();
    let (year, month, day) = civil(seconds / 86400);
    (year, month, day, seconds % 86400)
}

/// The date of a day after 1970-01-01 (Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

/// HMAC with SHA-256 (RFC 2104).
pub fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    match key.len() {
        0..=64 => block[..key.len()].copy_from_slice(key),
        _ => block[..32].copy_from_slice(&sha256(key)),
    }
    let inner = [&block.map(|byte| byte ^ 0x36)[..], text].concat();
    sha256(&[&block.map(|byte| byte ^ 0x5c)[..], &sha256(&inner)].concat())
}

/// The first 32 bits of the fractional part of a root of a prime: where SHA-256 takes its constants
/// from. Exact, in integers.
fn root_fraction(prime: u128, cube: bool) -> u32 {
    let (mut low, mut high) = (0u128, 1u128 << 40);
    let wanted = prime << if cube { 96 } else { 64 };
    while high - low > 1 {
        let middle = (low + high) / 2;
        let power = if cube { middle * middle * middle } else { middle * middle };
        if power <= wanted { low = middle } else { high = middle }
    }
    low as u32
}

fn primes() -> impl Iterator<Item = u128> {
    (2..).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0))
}

/// SHA-256 (FIPS 180-4).
pub fn sha256(text: &[u8]) -> [u8; 32] {
    static CONSTANTS: std::sync::OnceLock<(Vec<u32>, Vec<u32>)> = std::sync::OnceLock::new();
    let (start, round) = CONSTANTS.get_or_init(|| {
        (
            primes().take(8).map(|prime| root_fraction(prime, false)).collect(),
            primes().take(64).map(|prime| root_fraction(prime, true)).collect(),
        )
    });
    let mut state: [u32; 8] = start[..].try_into().expect("eight of them");
    let mut padded = text.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend_from_slice(&(text.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks_exact(64) {
        compress(&mut state, block, round);
    }
    let mut out = [0; 32];
    for (to, word) in out.chunks_exact_mut(4).zip(state) {
        to.copy_from_slice(&word.to_be_bytes());
    }
    out
}

fn compress(state: &mut [u32; 8], block: &[u8], round: &[u32]) {
    let mut words: Vec<u32> =
        block.chunks_exact(4).map(|word| u32::from_be_bytes(word.try_into().expect("four"))).collect();
    for i in 16..64 {
        let (a, b) = (words[i - 15], words[i - 2]);
        let a = a.rotate_right(7) ^ a.rotate_right(18) ^ (a >> 3);
        let b = b.rotate_right(17) ^ b.rotate_right(19) ^ (b >> 10);
        words.push(words[i - 16].wrapping_add(a).wrapping_add(words[i - 7]).wrapping_add(b));
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for (word, constant) in words.iter().zip(round) {
        let mixed = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let chosen = (e & f) ^ (!e & g);
        let one = h.wrapping_add(mixed).wrapping_add(chosen).wrapping_add(*constant).wrapping_add(*word);
        let mixed = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let two = mixed.wrapping_add((a & b) ^ (a & c) ^ (b & c));
        (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(one), c, b, a, one.wrapping_add(two));
    }
    for (sum, word) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *sum = sum.wrapping_add(word);
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 with padding (RFC 4648).
pub fn base64(bytes: &[u8]) -> String {
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let word =
            three.iter().fold(0u32, |word, byte| (word << 8) | u32::from(*byte)) << (8 * (3 - three.len()));
        for i in 0..4 {
            let digit = BASE64[(word >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= three.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

/// The bytes of a Base64 text.
pub fn from_base64(text: &str) -> Vec<u8> {
    let (mut word, mut bits, mut out) = (0u32, 0, Vec::new());
    for digit in text.bytes().filter(|byte| *byte != b'=') {
        let value = BASE64.iter().position(|found| *found == digit).expect("a digit of Base64");
        word = (word << 6) | value as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((word >> bits) as u8);
            word &= (1 << bits) - 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_of_the_standards() {
        let hash = |text: &[u8]| hex(&sha256(text));
        assert_eq!(hash(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(hash(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(
            hash(b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        );
        // RFC 4231, cases 2 and 6.
        assert_eq!(
            hex(&hmac(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hex(&hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
            assert_eq!(from_base64(coded), plain.as_bytes());
        }
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(20_512), (2026, 2, 28));
        assert_eq!(civil(20_513), (2026, 3, 1));
    }
}
