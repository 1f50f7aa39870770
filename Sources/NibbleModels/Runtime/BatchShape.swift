/// The sizes of one call: how many tokens of how many rows, and how long they are.
package struct BatchShape: Sendable {
    /// T
    package var tokens: Int
    /// R
    package var rows: Int
    /// The most tokens of one row in this call.
    package var maximumQueryLength: Int
    /// The most keys of one row, those of this call included.
    package var maximumLength: Int
    /// Sizes the launches in place of ``maximumLength`` where a captured graph has to serve longer rows too.
    package var launchLength: Int?
    /// How many rows at the front have one token, where others behind them have more; 0 otherwise.
    package var decodingRows = 0
    /// Selects the rotary tables in place of ``maximumLength``: those of a prompt's full length for each of its chunks.
    package var rotaryLength: Int?
    /// Blocks between the starts of two rows in the block tables; `nil`: as many as a row can have.
    package var tableStride: Int?
    /// Blocks between the starts of two rows in the table of states; `nil`: as many as a row can have.
    package var stateStride: Int?

    package init(tokens: Int, rows: Int, maximumQueryLength: Int, maximumLength: Int, launchLength: Int? = nil) {
        self.tokens = tokens
        self.rows = rows
        self.maximumQueryLength = maximumQueryLength
        self.maximumLength = maximumLength
        self.launchLength = launchLength
    }
}
