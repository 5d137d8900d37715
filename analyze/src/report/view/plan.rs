//! Sharing out the page's elements, so that it stays quick to open however large the cluster is.

/// Elements that a browser lays out in well under a second; measured, see the budgets in the journal.
const ELEMENTS: u64 = 12_000;
/// Most rows of one table.
const ROWS: u64 = 500;

/// What a section would like to show.
#[derive(Clone, Copy)]
pub(super) struct Need {
    /// Rows.
    pub(super) rows: u64,
    /// Elements in a row, at most.
    pub(super) each: u64,
    /// Elements that it gets before others get more than theirs.
    pub(super) share: u64,
}

/// How many rows each section gets: its share, then what others leave, in their order.
pub(super) fn plan<const N: usize>(needs: [Need; N]) -> [u64; N] {
    let wish = |need: &Need| need.rows.min(ROWS);
    let mut rows = needs.map(|need| wish(&need).min(need.share / need.each.max(1)));
    let mut left = ELEMENTS.saturating_sub(needs.iter().zip(rows).map(|(need, got)| need.each * got).sum());
    for (need, got) in needs.iter().zip(rows.iter_mut()) {
        let more = (wish(need) - *got).min(left / need.each.max(1));
        *got += more;
        left -= more * need.each;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pages_show_everything_and_large_ones_stay_within() {
        let need = |rows| Need { rows, each: 20, share: 2_000 };
        assert_eq!(plan([need(3), need(400)]), [3, 400]);
        let rows = plan([need(10_000), need(10_000), need(10)]);
        assert_eq!(rows, [490, 100, 10]);
        assert!(rows.iter().sum::<u64>() * 20 <= ELEMENTS);
    }
}
