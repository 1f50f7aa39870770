/// Which tokens may come next in one answer: a grammar, for example. Used by the engine's thread only.
///
/// It stays with its answer when the answer is preempted: the same tokens are computed again, and it already knows them.
package protocol TokenMaskProvider: AnyObject {
    /// Sets bit v mod 32 of word v / 32 for each token v that may come next, and clears the others.
    /// - Parameter words: ⌈V / 32⌉ words with any contents.
    /// - Throws: what ends this answer.
    func mask(into words: UnsafeMutableBufferPointer<Int32>) throws
    /// A token was chosen.
    /// - Throws: what ends this answer.
    func accept(_ token: Int32) throws
    /// Whether no token can follow, not even one that ends the text. The answer ends then.
    var isExhausted: Bool { get throws }
    /// Takes the last `count` tokens back, which were drafted and not kept.
    func rollback(_ count: Int)
}
