/// Which tokens may come next in one answer: a grammar, for example. Used by the engine's thread only.
///
/// It stays with its answer when the answer is preempted, so that nothing is replayed.
package protocol TokenMaskProvider: AnyObject {
    /// Sets bit v mod 32 of word v / 32 for each token v that may come next, and clears the others.
    /// - Parameter words: ⌈V / 32⌉ words with any contents.
    /// - Throws: what ends this answer.
    func mask(into words: UnsafeMutableBufferPointer<Int32>) throws
    /// A token was chosen.
    /// - Throws: what ends this answer.
    func accept(_ token: Int32) throws
    /// Takes the last `count` tokens back, which were drafted and not kept.
    func rollback(_ count: Int)
}
