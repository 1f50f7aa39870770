package import NibbleCore

/// One operation with its inputs. Running it compares a backend's result with the plain computation in double precision.
///
/// The same list serves the tests of every backend, `doctor --selftest` and the operation benchmarks.
package struct OperationCase: Sendable, CustomStringConvertible {
    /// Operation, sizes and whatever makes the case special: `normalize rms [3, 100] residual`.
    package let name: String
    /// The dtype a model would be loaded in, which decides the dtype of the backend's activations.
    package let loadDType: DType

    private let body: @Sendable (OperationContext) throws -> OperationResult

    package init(
        _ name: String, loadDType: DType = .float32, body: @escaping @Sendable (OperationContext) throws -> OperationResult
    ) {
        self.name = name
        self.loadDType = loadDType
        self.body = body
    }

    package var description: String { loadDType == .float32 ? name : "\(name) \(loadDType)" }

    /// Runs the operation once.
    /// - Throws: whatever the backend throws.
    package func run(on backend: any Backend) throws -> OperationResult {
        try body(OperationContext(backend: backend, activation: backend.activationDType(loadDType: loadDType)))
    }
}

/// How far a backend's result is from the plain one.
package struct OperationResult: Sendable, CustomStringConvertible {
    /// The largest |got − wanted| / max(|wanted|, root mean square of all wanted); infinite if a NaN is there.
    package let worstError: Double
    package let tolerance: Double
    /// The element with the largest error, for reports.
    package let detail: String

    /// The error as a share of the allowed one: a result passes if it is at most 1. Any error counts as infinite where none is
    /// allowed.
    package var share: Double { worstError == 0 ? 0 : tolerance > 0 ? worstError / tolerance : .infinity }

    package var passed: Bool { share <= 1 }

    package init(worstError: Double, tolerance: Double, detail: String = "") {
        self.worstError = worstError.isNaN ? .infinity : worstError
        self.tolerance = tolerance
        self.detail = detail
    }

    /// Compares element by element.
    package init(got: [Double], wanted: [Double], tolerance: Double) {
        guard got.count == wanted.count else {
            self.init(worstError: .infinity, tolerance: tolerance, detail: "\(got.count) elements, expected \(wanted.count)")
            return
        }
        let meanSquare = wanted.reduce(0) { $0 + $1 * $1 } / Double(max(wanted.count, 1))
        let scale = max(meanSquare.squareRoot(), 1e-30)
        var worst = 0.0
        var place = 0
        for index in wanted.indices {
            let difference = abs(got[index] - wanted[index]) / max(abs(wanted[index]), scale)
            let error = difference.isNaN ? .infinity : difference
            if error > worst {
                worst = error
                place = index
            }
        }
        let detail = wanted.isEmpty ? "" : "element \(place): \(got[place]), expected \(wanted[place])"
        self.init(worstError: worst, tolerance: tolerance, detail: detail)
    }

    /// Exact agreement of integers or bytes.
    package init<Value: Equatable>(got: [Value], exactly wanted: [Value]) {
        let place = zip(got, wanted).enumerated().first { $0.element.0 != $0.element.1 }
        let same = place == nil && got.count == wanted.count
        let detail = place.map { "element \($0.offset): \($0.element.0), expected \($0.element.1)" } ?? ""
        self.init(worstError: same ? 0 : .infinity, tolerance: 0, detail: detail)
    }

    /// The result with the larger share of what it is allowed, so that a failure is never replaced by a success.
    package func and(_ other: OperationResult) -> OperationResult { other.share > share ? other : self }

    package var description: String {
        "\(passed ? "ok" : "FAILED"), error \(worstError) (allowed \(tolerance))" + (detail.isEmpty ? "" : ", \(detail)")
    }
}

/// Every case.
package enum OperationCases {
    package static let all: [OperationCase] =
        elementwise + normalization + rotateAndStore + attention + attendRotating + selection + slotSelection + routes + linear
        + linearByTokens + linearAfterNorm + linearAfterGate + lowRank + experts + quantization + recurrence

    /// The cases that differ on this backend. A backend whose activations are always float32 runs one of each kind.
    package static func distinct(on backend: any Backend) -> [OperationCase] {
        var seen: Set<String> = []
        return all.filter { seen.insert("\($0.name) \(backend.activationDType(loadDType: $0.loadDType))").inserted }
    }
}
