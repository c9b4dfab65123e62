//! Durations, sizes and endpoints: text in, value out, and back.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use grapevine_configs::{ByteSize, Endpoint, Period};
use proptest::prelude::*;

#[test]
fn periods_as_operators_write_them() {
    for (text, nanos) in [
        ("0", 0),
        ("0s", 0),
        ("500ms", 500_000_000),
        ("2s", 2_000_000_000),
        ("1m30s", 90_000_000_000),
        ("1.5h", 5_400_000_000_000),
        ("1h2m3s4ms5us6ns", 3_723_004_005_006),
        (" 3600s ", 3_600_000_000_000),
        ("10 s", 10_000_000_000),
        ("7µs", 7_000),
        (".5s", 500_000_000),
        ("0.1s", 100_000_000),
        ("0.0000000019s", 1),
    ] {
        assert_eq!(text.parse::<Period>().unwrap().as_nanos(), nanos, "{text}");
    }
}

#[test]
fn what_is_no_period() {
    for text in [
        "",
        " ",
        "5",
        "s",
        "ms",
        "10 parsecs",
        "-1s",
        "+1s",
        "1s2",
        "1..5s",
        ".s",
        "1_000ms",
        "1e3s",
        "٣s",
        "1d",
    ] {
        let error = text.parse::<Period>().expect_err(text).to_string();
        assert!(error.contains("is not a duration; write a number with a unit"), "{text}: {error}");
    }
    for text in ["18446744073709551616ns", "5124096h", "99999999999999999999999999999999999999999999999999h"]
    {
        let error = text.parse::<Period>().expect_err(text).to_string();
        assert!(error.contains("is too long"), "{text}: {error}");
    }
}

#[test]
fn periods_are_written_to_be_read() {
    for (period, text) in [
        (Period::milliseconds(0), "0s"),
        (Period::milliseconds(1500), "1500ms"),
        (Period::milliseconds(2000), "2s"),
        (Period::milliseconds(90_000), "1m30s"),
        (Period::milliseconds(90_500), "1m30s500ms"),
        (Period::seconds(15 * 60), "15m"),
        (Period::seconds(3600), "1h"),
        (Period::seconds(3661), "1h1m1s"),
    ] {
        assert_eq!(period.to_string(), text);
    }
}

#[test]
fn sizes_as_operators_write_them() {
    for (text, bytes) in [
        ("0", 0),
        ("1048576", 1 << 20),
        ("10 MB", 10 << 20),
        ("4MiB", 4 << 20),
        ("512 k", 512 << 10),
        ("1.5g", 3 << 29),
        ("99b", 99),
        ("18446744073709551615", u64::MAX),
    ] {
        assert_eq!(text.parse::<ByteSize>().unwrap().as_bytes(), bytes, "{text}");
    }
    for text in ["", "MB", "10 bananas", "-1", "1 MB 2", "1e3"] {
        let error = text.parse::<ByteSize>().expect_err(text).to_string();
        assert!(error.contains("is not a size; write bytes or a unit"), "{text}: {error}");
    }
    for text in ["18446744073709551616", "17179869184 GB"] {
        let error = text.parse::<ByteSize>().expect_err(text).to_string();
        assert!(error.contains("is too large"), "{text}: {error}");
    }
}

#[test]
fn endpoints() {
    for text in ["peer0.org1.example.com:7051", "127.0.0.1:0", "[::1]:7051", "under_score:1"] {
        assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
    }
    for text in [
        "",
        "host",
        "host:",
        ":7051",
        "host:70510",
        "host:-1",
        "::1:7051",
        "[::1]",
        "[host]:1",
        "a b:1",
        "http://a:1",
    ] {
        text.parse::<Endpoint>().expect_err(text);
    }
    assert!("0.0.0.0:1".parse::<Endpoint>().unwrap().is_unspecified());
    assert!("[::]:1".parse::<Endpoint>().unwrap().is_unspecified());
    assert!(!"localhost:1".parse::<Endpoint>().unwrap().is_unspecified());
}

proptest! {
    #[test]
    fn every_period_reads_back(nanos in any::<u64>(), unit in 0_u32..10) {
        let nanos = nanos >> (unit * 6);
        let period: Period = format!("{nanos}ns").parse().unwrap();
        prop_assert_eq!(period.as_nanos(), nanos);
        prop_assert_eq!(period.to_string().parse::<Period>().unwrap(), period);
    }

    #[test]
    fn every_size_reads_back(bytes in any::<u64>(), shift in 0_u32..64) {
        let size = ByteSize::bytes((bytes >> shift) << (shift / 2));
        prop_assert_eq!(size.to_string().parse::<ByteSize>().unwrap(), size);
    }

    #[test]
    fn fractions_are_exact(whole in 0_u64..1000, thousandths in 0_u64..1000) {
        let period: Period = format!("{whole}.{thousandths:03}s").parse().unwrap();
        prop_assert_eq!(period.as_nanos(), (whole * 1000 + thousandths) * 1_000_000);
    }

    #[test]
    fn any_text_is_an_answer_not_a_panic(text in "\\PC{0,40}", number in "[0-9.]{0,60}", unit in "(ns|us|ms|s|m|h|kb|MB|GiB| )?") {
        for text in [text, format!("{number}{unit}")] {
            let _ = text.parse::<Period>();
            let _ = text.parse::<ByteSize>();
            let _ = text.parse::<Endpoint>();
        }
    }
}
