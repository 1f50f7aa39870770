import Foundation
import NibbleCore
package import NibbleModels
import NibbleQuantization

/// The size table of accelerate's `estimate-memory`: the model without its head in float32, and that divided by 2, 4 and 8.
package struct MemoryEstimate: Sendable {
    package struct Row: Sendable {
        package var dtype: String
        /// Bytes of the largest undivided layer, of the whole model, and of training it with Adam.
        package var largestLayer: Double
        package var total: Double
        package var training: Double?
    }

    package let rows: [Row]

    package init(_ tree: ModuleTree) {
        let base = ModuleTree(
            root: ModuleNode(
                "", tree.root.className, parameters: tree.root.parameters, buffers: tree.root.buffers,
                children: tree.root.children.filter { $0.name != tree.outputEmbedding }),
            tied: tree.tied.filter { !$0.target.hasPrefix(tree.outputEmbedding + ".") },
            noSplitClasses: tree.noSplitClasses, outputEmbedding: tree.outputEmbedding)
        let sizes = ModuleSizes(base, QuantizationPlan(base, config: nil), loadDType: .float32)
        let largest = sizes.largestLayers(base.root.children.map(\.name)).bytes
        rows = [("float32", 1.0), ("float16", 2), ("int8", 4), ("int4", 8)].map { dtype, divisor in
            Row(
                dtype: dtype, largestLayer: largest / divisor, total: sizes.total / divisor,
                training: divisor == 1 ? sizes.total * 4 : divisor == 2 ? sizes.total * 2 : nil)
        }
    }

    /// Bytes in powers of 1024, but labelled KB, MB and GB, as the reference prints them.
    package static func text(_ bytes: Double) -> String {
        var value = bytes
        for unit in ["bytes", "KB", "MB", "GB", "TB"] {
            if value < 1024 { return "\(Double(String(format: "%.2f", value)) ?? value) \(unit)" }
            value /= 1024
        }
        return "\(Double(String(format: "%.2f", value)) ?? value) PB"
    }
}
