/// The sizes of one call: how many tokens of how many rows, and how long they are.
struct BatchShape {
    /// T
    var tokens: Int
    /// R
    var rows: Int
    /// The most tokens of one row in this call.
    var maximumQueryLength: Int
    /// The most keys of one row, those of this call included.
    var maximumLength: Int
    /// Sizes the launches in place of ``maximumLength`` where a captured graph has to serve longer rows too.
    var launchLength: Int?
}
