package import NibbleCore

/// transformers' own planner: fills devices in order, module by module, without going back.
///
/// Follows `infer_auto_device_map` and `get_balanced_memory` of transformers 5 exactly, weaknesses included.
package struct ReferencePlanner: Sendable {
    package let sizes: ModuleSizes
    package let isQuantized: Bool

    package init(_ sizes: ModuleSizes, isQuantized: Bool) {
        self.sizes = sizes
        self.isQuantized = isQuantized
    }

    package enum Balance: Sendable {
        /// Devices are filled in order.
        case none
        case even
        /// As little as possible on GPU 0.
        case low0
    }

    /// Quantized loads keep a tenth of every budget free.
    static let quantizedShare = 0.9

    /// - Parameters:
    ///   - limits: bytes by device. A device that is not named does not exist, except the disk.
    ///   - areGiven: whether the user named the limits. If not, a single GPU keeps a tenth free.
    package func plan(_ balance: Balance, limits: [Device: Double], areGiven: Bool) -> DeviceMap {
        assign(limits: self.limits(balance, limits: limits, areGiven: areGiven))
    }

    /// The limits that ``plan(_:limits:areGiven:)`` fills up to.
    package func limits(_ balance: Balance, limits: [Device: Double], areGiven: Bool) -> [Device: Double] {
        let balanced = balanced(balance, limits: limits, areGiven: areGiven)
        return isQuantized ? balanced.mapValues { $0 * ReferencePlanner.quantizedShare } : balanced
    }

    /// Cuts the limits of all GPUs but the last to an even share and some slack.
    package func balanced(_ balance: Balance, limits: [Device: Double], areGiven: Bool) -> [Device: Double] {
        guard balance != .none else { return limits }
        let gpus = limits.filter { $0.key.isGPU && $0.value > 0 }.keys.sorted()
        guard let last = gpus.last else { return limits }
        let low0 = balance == .low0 && gpus.count > 1
        var limits = limits
        if gpus.count == 1, !areGiven { limits[last] = (limits[last] ?? 0) * 0.9 }

        let slack = (1.25 * max(sizes.largestUndivided, sizes.largestOwn)).rounded(.down)
        let share = (sizes.total / Double(low0 ? gpus.count - 1 : gpus.count)).rounded(.down) + slack
        for gpu in gpus where gpu != last && !(low0 && gpu == .cuda(0)) {
            limits[gpu] = min(limits[gpu] ?? 0, share)
        }
        if low0 {
            let others = (1..<gpus.count).reduce(0) { $0 + (limits[.cuda($1)] ?? 0) }
            limits[.cuda(0)] = min(limits[.cuda(0)] ?? 0, max(0, sizes.total - others))
        }
        return limits
    }

    /// Assigns modules to devices within `limits`, without balancing.
    package func assign(limits: [Device: Double]) -> DeviceMap {
        var assignment = ReferenceAssignment(sizes, limits: limits)
        return DeviceMap(assignment.run()).cleaned()
    }
}

extension Device {
    /// Whether it is a GPU.
    package var isGPU: Bool {
        if case .cuda = self { true } else { false }
    }
}
