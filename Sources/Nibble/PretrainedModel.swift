public import Foundation
import NibbleCore
import Synchronization

/// A model loaded from a checkpoint, ready to generate.
///
/// Sessions made from it are independent, and it may be used from several tasks. Its weights never change; adapters come and go.
public final class PretrainedModel: Sendable {
    /// The folder, or the GGUF file.
    public let folder: URL
    /// The model, with the adapters that are active.
    package var model: LanguageModel { loadedAdapters.withLock { $0.model } }
    let loadedAdapters: Mutex<LoadedAdapters>
    /// What loading did, with its warnings.
    public let report: LoadReport
    /// The module tree, with the ties of the checkpoint.
    package let tree: ModuleTree
    package let plan: QuantizationPlan
    /// The base's weights by module path, as `nibble quantize` writes them.
    package let weights: ModelWeights
    /// Runs conversions on the host.
    let cpu: any Backend
    /// Where each module lies.
    public let deviceMap: DeviceMap
    /// Options from generation_config.json, or from config.json where there is none.
    public let generationConfig: GenerationConfig

    /// Runs the model's generations.
    let thread = GenerationThread()

    private init(
        _ source: ModelSource, _ loaded: ModelLoader.LoadedModel, deviceMap: DeviceMap, _ adapters: [AdapterReference],
        cpu: any Backend
    ) throws {
        folder = source.folder
        self.cpu = cpu
        var added = LoadedAdapters(
            AdaptedModelMaker(
                source, base: loaded.model, weights: loaded.weights, tree: loaded.tree, dtype: loaded.report.dtype, cpu: cpu))
        var report = loaded.report
        for (index, reference) in adapters.enumerated() {
            let read = try added.read(reference.folder, scale: reference.scale)
            try added.add(read.adapter, named: index == 0 ? "default" : "adapter\(index + 1)")
            report.warnings += read.warnings
        }
        self.report = report
        loadedAdapters = Mutex(added)
        tree = loaded.tree
        plan = loaded.plan
        weights = loaded.weights
        self.deviceMap = deviceMap
        generationConfig =
            try ModelSource.isGGUF(folder)
            ? GenerationConfig(modelConfig: .object(source.config.values), source: folder.path)
            : GenerationConfig(modelFolder: folder)
    }

    /// Loads a model.
    ///
    /// - Parameters:
    ///   - folder: a model folder or a GGUF file.
    ///   - configuration: how to load it.
    /// - Throws: ``LoadError``, ``ModelError``, ``CheckpointError``, ``JSONError``, ``QuantizationConfigError``, ``DeviceMapError``,
    ///   ``MemoryLimitError``, ``BackendError``, ``CUDAUnavailable``, ``KernelCompilationError``. Each names the file and what was
    ///   expected and found.
    public static func load(folder: URL, _ configuration: LoadConfiguration = .init()) throws -> PretrainedModel {
        let source = try ModelSource(folder: folder)
        try configuration.quantization?.validate()
        let checkpoint = try source.checkpoint(variant: configuration.variant, dtype: configuration.dtype)
        let backends = try configuration.machine()
        var warnings = [String]()
        let request = try configuration.placementRequest(present: backends, warnings: &warnings)
        let loader = ModelLoader(source, options: configuration.loader, backends: backends)
        var loaded = try loader.load(checkpoint, placement: request)
        loaded.report.warnings = warnings + loaded.report.warnings
        let map = loaded.report.placement?.deviceMap ?? .all(on: .cpu)
        return try PretrainedModel(source, loaded, deviceMap: map, configuration.adapters, cpu: loader.cpu)
    }

    /// Loads a LoRA adapter and activates it beside those that are active. One of the same name is replaced. A generation that runs
    /// meanwhile goes on without the sums of an adapter that is gone.
    ///
    /// - Parameters:
    ///   - folder: with adapter_config.json and adapter_model.safetensors, as peft's `save_pretrained` writes them.
    ///   - name: the name under which it is activated and unloaded.
    ///   - scale: multiplies the adapter's sums.
    /// - Returns: warnings.
    /// - Throws: ``LoadError``, ``CheckpointError``, ``JSONError``, ``ModelError``, ``BackendError``; then nothing has changed.
    @discardableResult
    public func load(adapter folder: URL, named name: String = "default", scale: Double = 1) throws -> [String] {
        let read = try loadedAdapters.withLock { try $0.read(folder, scale: scale) }
        try loadedAdapters.withLock { try $0.add(read.adapter, named: name) }
        return read.warnings
    }

    /// Whether the model reads its input with an encoder.
    public var isEncoderDecoder: Bool { model.isEncoderDecoder }

    /// The number of tokens that the model scores (V).
    public var vocabularySize: Int { model.vocabularySize }

    /// The tokens that position embeddings exist for; `nil` if positions have no limit.
    public var maximumPositions: Int? { model.maximumPositions }

    /// Bytes as transformers' `get_memory_footprint` counts them.
    public var memoryFootprint: Int { report.footprint }
}
