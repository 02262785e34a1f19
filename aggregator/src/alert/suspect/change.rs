//! What the detector says: that there is a change, since when, and whose it is.

/// That retransmissions have risen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Suspicion {
    /// End of the pulse that gave the last bit of evidence, Unix ms.
    pub at_ms: u64,
    /// Estimated time of the change, Unix ms.
    pub onset_ms: u64,
    /// Segments retransmitted by segments sent since then.
    pub ratio: f64,
    /// Lower end of its interval of two standard deviations.
    pub low: f64,
    /// Upper end of it.
    pub high: f64,
    /// The learned ratio of the nodes that sent since then, by their traffic.
    pub baseline: f64,
    /// Variance of the counts of a second by their mean.
    pub dispersion: f64,
    /// Sampled flows with data in the last seconds, at least.
    pub flows_active: u64,
    /// Nodes that see it by themselves. One: the others may be well.
    pub nodes: u32,
    /// Nodes heard of in the last seconds.
    pub nodes_present: u32,
}

/// That nodes see the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// What the stream sees.
    pub suspicion: Suspicion,
    /// How many of its nodes see it by themselves, at the same time.
    pub nodes: u32,
}

/// What one node has to do with it.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    /// Its name.
    pub node: String,
    /// Whether it sees a change by itself.
    pub touched: bool,
    /// Segments retransmitted by segments sent, since it sees more than usual.
    pub ratio: f64,
    /// Retransmits of its sampled flows since then.
    pub retrans: f64,
    /// Segments of its sampled flows since then.
    pub sent: f64,
}

/// What a pulse has changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// A change is suspected.
    Began(Suspicion),
    /// Two nodes or more see it by themselves. Said again, with more certain numbers, a few times a second while it lasts.
    Agreed(Agreement),
    /// It is over, at that time (Unix ms).
    Ended {
        /// When, Unix ms.
        at_ms: u64,
        /// The new level is taken for normal, or nothing more was heard: it is not known to have gone back.
        given_up: bool,
    },
}
