//! HdrHistogram's own text format for percentile distributions, as its plotters read it. Values in milliseconds.

use std::fmt::Write;

use hdrhistogram::Histogram;

/// Rows for each halving of the distance to 100 %.
const TICKS: u32 = 5;
const NS_PER_MS: f64 = 1e6;

/// The whole file.
pub fn render(histogram: &Histogram<u64>) -> String {
    let mut out = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let mut total = 0;
    for step in histogram.iter_quantiles(TICKS) {
        let value = step.value_iterated_to() as f64 / NS_PER_MS;
        let quantile = step.quantile_iterated_to();
        total += step.count_since_last_iteration();
        let _ = write!(out, "{value:12.3} {quantile:14.12} {total:10}");
        if quantile < 1.0 {
            let _ = write!(out, " {:14.2}", 1.0 / (1.0 - quantile));
        }
        out.push('\n');
    }
    let ms = |ns: f64| ns / NS_PER_MS;
    let _ = writeln!(
        out,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]",
        ms(histogram.mean()),
        ms(histogram.stdev())
    );
    let _ = writeln!(
        out,
        "#[Max     = {:12.3}, Total count    = {:12}]",
        ms(histogram.max() as f64),
        histogram.len()
    );
    let _ = writeln!(
        out,
        "#[Buckets = {:12}, SubBuckets     = {:12}]",
        histogram.buckets(),
        (histogram.distinct_values() / (usize::from(histogram.buckets()) + 1)) * 2
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_summary_have_their_form() {
        let mut histogram = crate::engine::meter::histogram();
        (1..=1000).for_each(|i| histogram.record(i * 1_000_000).unwrap());
        let text = render(&histogram);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].split_whitespace().count(), 4);
        let first: Vec<f64> = lines[2].split_whitespace().map(|f| f.parse().unwrap()).collect();
        assert_eq!((first.len(), first[1]), (4, 0.0));
        let median = lines[2..].iter().find(|l| l.contains(" 0.500000000000 ")).unwrap();
        let median: Vec<f64> = median.split_whitespace().map(|f| f.parse().unwrap()).collect();
        assert!((median[0] - 500.0).abs() < 1.0 && median[3] == 2.0, "{median:?}");
        assert!(lines.iter().any(|l| l.contains(" 1.000000000000 ") && l.split_whitespace().count() == 3));
        assert!(text.contains("#[Mean    =") && text.contains("Total count    =         1000]"));
    }
}
