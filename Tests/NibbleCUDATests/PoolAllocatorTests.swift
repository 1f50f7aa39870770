import NibbleCUDA
import NibbleCore
import Testing

@Suite struct PoolAllocatorTests {
    private static let megabyte = 1 << 20

    private func address(_ outcome: PoolSimulation.Outcome) throws -> UInt {
        guard case .address(let address) = outcome else {
            Issue.record("\(outcome)")
            throw BackendError.outOfMemory(device: .cuda(0), requested: 0, available: nil)
        }
        return address
    }

    @Test("small allocations share a segment, are aligned, and do not overlap")
    func sharing() throws {
        let pool = PoolSimulation(budget: 100 * Self.megabyte)
        let addresses = try (1...100).map { try address(pool.allocate($0 * 100)) }
        #expect(pool.segments.count == 1)
        for (index, start) in addresses.enumerated() {
            #expect(start % 256 == 0)
            if index > 0 { #expect(start >= addresses[index - 1] + UInt(index * 100)) }
        }
    }

    @Test("what is freed is given out again, and neighbours join")
    func reuse() throws {
        let pool = PoolSimulation(budget: 100 * Self.megabyte)
        let parts = try (0..<8).map { _ in try address(pool.allocate(4 * Self.megabyte)) }
        for index in [1, 3, 2, 0, 7, 5, 6, 4] { pool.free(parts[index]) }
        #expect(pool.used == 0)
        #expect(try address(pool.allocate(32 * Self.megabyte)) == parts[0])
        #expect(pool.segments.count == 1)
    }

    @Test("the sum of segments never exceeds the budget")
    func hardBudget() throws {
        let budget = 70 * Self.megabyte
        let pool = PoolSimulation(budget: budget)
        var count = 0
        while case .address = pool.allocate(3 * Self.megabyte) {
            count += 1
            #expect(pool.reserved <= budget && pool.segments.values.reduce(0, +) == pool.reserved)
        }
        #expect(count >= 20)
        #expect(pool.allocate(3 * Self.megabyte) == .exceedsBudget(available: budget - pool.used))
    }

    @Test("a budget is used to its last 256 bytes by one allocation")
    func wholeBudget() throws {
        let pool = PoolSimulation(budget: 5 * Self.megabyte)
        let all = try address(pool.allocate(5 * Self.megabyte))
        #expect(pool.allocate(1) == .exceedsBudget(available: 0))
        pool.free(all)
        _ = try address(pool.allocate(1))
    }

    @Test("empty segments make room for a larger one")
    func replacesEmptySegments() throws {
        let pool = PoolSimulation(budget: 64 * Self.megabyte)
        let small = try address(pool.allocate(Self.megabyte))
        pool.free(small)
        _ = try address(pool.allocate(60 * Self.megabyte))
        #expect(pool.reserved <= 64 * Self.megabyte)
        #expect(pool.segments.count == 1)
    }

    @Test("ranges of neighbouring segments are never joined")
    func segmentsStayApart() throws {
        let pool = PoolSimulation(budget: 80 * Self.megabyte)
        let first = try address(pool.allocate(20 * Self.megabyte))
        let second = try address(pool.allocate(20 * Self.megabyte))
        pool.free(first)
        pool.free(second)
        // Only a fresh segment can hold it: the two lie side by side and yet apart.
        _ = try address(pool.allocate(40 * Self.megabyte))
        #expect(pool.segments.values.contains(40 * Self.megabyte))
    }

    @Test("a device that has less than the budget is reported, after an exact fit was tried")
    func deviceFull() throws {
        let pool = PoolSimulation(budget: 1000 * Self.megabyte, deviceBytes: 10 * Self.megabyte)
        _ = try address(pool.allocate(4 * Self.megabyte))
        _ = try address(pool.allocate(6 * Self.megabyte))
        #expect(pool.allocate(Self.megabyte) == .deviceFull(available: 0))
    }

    @Test("more than the budget is refused at once, whatever the number", arguments: [Int.max, Int.max - 100, 101 << 20])
    func absurd(size: Int) {
        let pool = PoolSimulation(budget: 100 * Self.megabyte)
        #expect(pool.allocate(size) == .exceedsBudget(available: 100 * Self.megabyte))
        #expect(pool.segments.isEmpty)
    }

    @Test("a long random history keeps its books")
    func randomHistory() throws {
        let pool = PoolSimulation(budget: 200 * Self.megabyte)
        var live: [(start: UInt, size: Int)] = []
        for step in 0..<3000 {
            let draw = RandomStream.mix(UInt64(step))
            if draw % 5 < 3 || live.isEmpty {
                let size = 1 << Int(draw >> 8 % 23)
                guard case .address(let start) = pool.allocate(size) else { continue }
                for other in live {
                    #expect(start + UInt(size) <= other.start || other.start + UInt(other.size) <= start)
                }
                #expect(pool.segments.contains { $0.key <= start && start + UInt(size) <= $0.key + UInt($0.value) })
                live.append((start, size))
            } else {
                pool.free(live.remove(at: Int(draw >> 16) % live.count).start)
            }
            #expect(pool.reserved <= 200 * Self.megabyte)
        }
        for block in live { pool.free(block.start) }
        #expect(pool.used == 0)
        pool.releaseAll()
        #expect(pool.segments.isEmpty)
    }

    @Test(
        "a load of a known size fits a segment of that size, with room for one weight that is being brought in",
        arguments: [(2560, 11), (2560, 3), (1024, 24), (4096, 8)])
    func load(width: Int, layers: Int) throws {
        let shapes = [(3 * width, width), (width, width), (4 * width, width), (width, 4 * width)]
        let codes = shapes.map { $0.0 * $0.1 / 2 }
        let (workspace, caches) = (60 * Self.megabyte, 24 * Self.megabyte)
        let stored = layers * codes.reduce(0) { $0 + $1 + $1 / 8 + 256 }
        let pool = PoolSimulation(budget: stored + workspace + caches + (codes.max() ?? 0) * 9 / 8)
        pool.expect(pool.budget)
        // In one piece, so before anything lies behind it.
        _ = try address(pool.allocate(workspace))
        for bytes in (0..<layers).flatMap({ _ in codes }) {
            // Canonical codes and scales, then tiled ones in their place.
            let canonical = try [bytes, bytes / 8].map { try address(pool.allocate($0)) }
            _ = try [bytes, bytes / 8].map { try address(pool.allocate($0)) }
            canonical.forEach(pool.free)
        }
        // Caches and activations are many buffers, which take what holes there are.
        for _ in 0..<caches / Self.megabyte { _ = try address(pool.allocate(Self.megabyte)) }
        #expect(pool.segments.count == 1)
    }
}
