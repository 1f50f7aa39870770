import NibbleCUDA
import Testing

/// Rules that kernels keep, as far as their text or the host's side shows them.
@Suite struct KernelContractTests {
    /// The text of each function of a source that declares shared memory for partial results.
    static let reductions: [(name: String, body: String)] = (CUDAKernelSources.all + CUDAKernelSources.headers).flatMap {
        source in
        source.text.components(separatedBy: "__device__").dropFirst().compactMap { text in
            guard let shared = text.range(of: " partial[32];"), let end = text.range(of: "\n}"),
                shared.lowerBound < end.lowerBound
            else { return nil }
            let name = text.prefix { $0 != "(" }.split(separator: " ").last ?? ""
            return ("\(source.name): \(name)", String(text[shared.upperBound..<end.lowerBound]))
        }
    }

    @Test("a reduction over a block has a barrier before it writes its shared memory, so that a kernel may call it twice")
    func reductionsMayRepeat() {
        let names = Set(Self.reductions.map { $0.name.split(separator: " ").last.map(String.init) ?? "" })
        #expect(names.isSuperset(of: ["blockSum", "blockMax", "blockMaxBits", "blockMoments"]))
        for (name, body) in Self.reductions {
            let barrier = body.range(of: "__syncthreads()")?.lowerBound
            let write = body.range(of: "partial[")?.lowerBound
            #expect(barrier != nil && write != nil && barrier! < write!, "\(name)")
        }
    }

    @Test(
        "kernels overlap from compute capability 9.0, with a driver that can record it",
        arguments: [
            ("sm_90a", 13000, true), ("sm_90a", 12030, true), ("sm_90a", 12020, false), ("sm_90a", 11080, false),
            ("sm_90a", 0, false), ("sm_80", 13000, false), ("compute_75", 13000, false), ("sm_120a", 12080, true),
        ])
    func overlap(architecture: String, driver: Int, isExpected: Bool) {
        #expect(KernelTarget(architecture: architecture).canOverlap(driverVersion: driver) == isExpected)
    }

    @Test("calls in flight together never share a set of counters", arguments: [2, 8])
    func roundRobin(count: Int) {
        var sets = RoundRobin(count: count)
        let drawn = (0..<3 * count).map { _ in sets.next() }
        #expect(drawn == (0..<3 * count).map { $0 % count })
    }
}
