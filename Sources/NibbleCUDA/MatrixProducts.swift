internal import CNibbleCUDA
internal import NibbleCore

/// cuBLASLt's matrix products for one context, with a cached plan per shape.
final class MatrixProducts: @unchecked Sendable {
    /// Workspace of an algorithm in bytes.
    let workspaceBytes: Int

    private let context: CUDAContext
    private let handle: UnsafeMutableRawPointer
    /// `nil` for a shape without an algorithm.
    private var plans: [Key: NibbleProductPlan?] = [:]

    /// Returns `nil` if cuBLASLt is missing or cannot be initialized. Nibble's own kernels are used then.
    init?(_ context: CUDAContext, workspaceBytes: Int) {
        guard CUDALibraries.matrixProducts.opened != nil, (try? context.makeCurrent()) != nil else { return nil }
        var handle: UnsafeMutableRawPointer?
        guard nibble_cublasltCreate(&handle) == 0, let handle else { return nil }
        self.context = context
        self.handle = handle
        self.workspaceBytes = workspaceBytes
    }

    deinit {
        try? context.makeCurrent()
        dropPlans()
        _ = nibble_cublasltDestroy(handle)
    }

    var version: String {
        let number = nibble_cublasltVersion()
        return "\(number / 10000).\(number / 100 % 100).\(number % 100)"
    }

    /// input [M, K] × weight [N, K]ᵀ → output [M, N], row-major, strides in elements.
    struct Product {
        enum Element: Int32 {
            case f32, f16, bf16, int8

            init(_ element: KernelElement) {
                switch element {
                case .f32: self = .f32
                case .f16: self = .f16
                case .bf16: self = .bf16
                }
            }
        }

        var tokens: Int
        var outFeatures: Int
        var inFeatures: Int
        var inputStride: Int
        var outputStride: Int
        var element: Element
        /// Ignored for int8, whose products are int32.
        var outputElement: Element
        var input: UInt
        var weight: UInt
        var output: UInt
        /// Added to the product; has the output's layout and may be the output. 0: none.
        var addend: UInt = 0
    }

    private struct Key: Hashable {
        let tokens, outFeatures, inFeatures, inputStride, outputStride: Int
        let element, outputElement: Int32
        let inputAlignment, weightAlignment, outputAlignment: UInt32
    }

    /// Enqueues the product, or returns false where the library has no algorithm for it.
    /// - Parameter workspace: ``workspaceBytes`` of device memory.
    func run(_ product: Product, workspace: UInt, on stream: CUDAStream) throws -> Bool {
        guard let plan = plan(for: product) else { return false }
        let status = nibble_productRun(
            handle, plan, UInt64(product.input), UInt64(product.weight), UInt64(product.addend),
            product.addend == 0 ? 0 : 1, UInt64(product.output), UInt64(workspace), workspaceBytes, stream.handle)
        guard status == 0 else {
            throw BackendError.deviceFailure(
                device: context.device, call: "cublasLtMatmul", message: String(cString: nibble_cublasltErrorText(status)))
        }
        return true
    }

    private func plan(for product: Product) -> NibbleProductPlan? {
        let key = Key(
            tokens: product.tokens, outFeatures: product.outFeatures, inFeatures: product.inFeatures,
            inputStride: product.inputStride, outputStride: product.outputStride, element: product.element.rawValue,
            outputElement: product.outputElement.rawValue, inputAlignment: alignment(product.input),
            weightAlignment: alignment(product.weight), outputAlignment: alignment(product.output | product.addend))
        if let known = plans[key] { return known }
        if plans.count >= 4096 { dropPlans() }
        var description = NibbleProduct(
            tokens: Int64(key.tokens), outFeatures: Int64(key.outFeatures), inFeatures: Int64(key.inFeatures),
            inputStride: Int64(key.inputStride), weightStride: Int64(key.inFeatures), outputStride: Int64(key.outputStride),
            inputType: key.element, outputType: key.outputElement, inputAlignment: key.inputAlignment,
            weightAlignment: key.weightAlignment, outputAlignment: key.outputAlignment)
        var plan: NibbleProductPlan?
        let status = nibble_productPlanCreate(handle, &description, workspaceBytes, &plan)
        let result = status == 0 ? plan : nil
        plans[key] = .some(result)
        return result
    }

    private func dropPlans() {
        for case let plan? in plans.values { nibble_productPlanDestroy(plan) }
        plans = [:]
    }

    private func alignment(_ address: UInt) -> UInt32 { UInt32(min(1 << address.trailingZeroBitCount, 256)) }
}
