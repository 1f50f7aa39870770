import ArgumentParser
import Foundation
import Nibble
import NibbleCore

/// The load options that every command takes.
struct LoadOptionsGroup: ParsableArguments {
    @Flag(name: .customLong("load-in-4bit"), help: "Quantize linear layers to 4 bits while loading.")
    var loadIn4Bit = false

    @Flag(name: .customLong("load-in-8bit"), help: "Quantize linear layers to 8 bits (LLM.int8()) while loading.")
    var loadIn8Bit = false

    @Option(
        help: "4-bit codebook: fp4 or nf4 (default: fp4, as in transformers; nf4 is more accurate).",
        completion: .list(["fp4", "nf4"]))
    var quantType: String?

    @Flag(help: "Quantize the scales of 4-bit weights, too (saves 0.37 bits a weight).")
    var doubleQuant = false

    @Option(
        help: "Dtype in which 4-bit layers multiply: float32, float16 or bfloat16 (default: the load dtype).",
        completion: .list(["float32", "float16", "bfloat16"]))
    var computeDtype: String?

    @Option(
        name: .customLong("int8-threshold"),
        help: "Input columns beyond this are multiplied in floating point by 8-bit layers (default: 6.0).")
    var int8Threshold: Double?

    @Option(help: "Modules to leave unquantized, separated by commas; a leading + adds to the default list.")
    var skipModules: String?

    @Option(
        help: "Weights that share a scale in 4-bit layers (default: \(FourBitFormat.defaultBlockSize)).",
        completion: .list(["32", "64", "128", "256", "512", "1024", "2048", "4096"]))
    var blockSize: Int?

    @Option(help: "Quantize the output head, too: int8, nf4 or fp4.", completion: .list(["int8", "nf4", "fp4"]))
    var quantizeHead: String?

    @Flag(help: "Quantize the layers that T5 models keep in float32, too: the second halves of their feed-forwards.")
    var quantizeWo = false

    @Flag(
        name: .customLong("int8-activations"),
        help: "Let 4-bit layers quantize activations to 8 bits: faster prefill, slightly different results.")
    var int8Activations = false

    @Flag(help: "Give a text the same tokens alone and among others, at the cost of some speed.")
    var batchInvariant = false

    @Option(help: "auto, float32, float16 or bfloat16.", completion: .list(["auto", "float32", "float16", "bfloat16"]))
    var dtype = "auto"

    @Option(
        help:
            "auto, balanced, balanced_low_0, sequential, a device (cpu, cuda:1, disk), or a JSON object of modules to devices, inline or in a file.",
        completion: .list(["auto", "balanced", "balanced_low_0", "sequential", "cpu", "cuda", "disk"])
    )
    var deviceMap = "auto"

    @Option(help: "Memory of each device, such as 0=600MB,1=1GB,cpu=2GB; devices that are not named are not used.")
    var maxMemory: String?

    @Option(
        help: "Folder for weights that stay on disk in another form than the checkpoint's (default: a temporary one).",
        completion: .directory)
    var offloadFolder: String?

    @Option(help: "nibble, or reference for transformers' own plan.")
    var planner: PlannerWord = .nibble

    @Flag(name: .customLong("fp32-cpu-offload"), help: "Leave modules that are placed on the CPU or on disk unquantized.")
    var fp32CPUOffload = false

    @Option(
        help: "Bits of the key/value cache: 8 (hardly a difference), 4 or 2 (lossy); default: the load dtype's.",
        completion: .list(["8", "4", "2"]))
    var cacheBits: Int?

    @Option(help: "Tokens of a sequence that placement makes room for (default: 512).")
    var context: Int?

    @Option(help: "Sequences side by side that placement makes room for (default: 1; generate runs up to 8 prompts at a time).")
    var batchSize: Int?

    @Option(help: "Branch, tag or commit of a model on the Hub (default: main).")
    var revision: String?

    @Option(help: "Read model.VARIANT.safetensors.")
    var variant: String?

    @Option(help: "Of a repository or folder with several GGUF files: the file to read, or its quantization, such as Q4_K_M.")
    var ggufFile: String?

    @Option(help: "CPU threads (default: all cores).")
    var threads: Int?

    @Flag(help: "Follow transformers and bitsandbytes wherever Nibble deliberately differs.")
    var referenceBehaviour = false

    @Flag(help: "No progress, no statistics.")
    var quiet = false

    func validate() throws {
        if loadIn4Bit && loadIn8Bit {
            throw ValidationError("--load-in-4bit and --load-in-8bit exclude each other: only one can be used at the same time")
        }
        try refuseIdleOptions()
        _ = try quantization()
        _ = try floatDType(dtype == "auto" ? nil : dtype, "--dtype", "auto, ")
        _ = try floatDType(computeDtype, "--compute-dtype")
        _ = try headFormat()
        _ = try placement()
        _ = try cacheQuantization()
        try check("--context", context, LoaderOptions.maximumContext)
        try check("--batch-size", batchSize, LoaderOptions.maximumBatchSize)
        try check("--threads", threads, Self.maximumThreads)
        if let int8Threshold, !(int8Threshold >= 0) {
            throw ValidationError("--int8-threshold should be 0 or more, found \(int8Threshold)")
        }
        if let offloadFolder, offloadFolder.isEmpty {
            throw ValidationError("--offload-folder should name a folder, found nothing")
        }
    }

    /// The most threads that a pool has.
    static let maximumThreads = 1024

    private func check(_ option: String, _ value: Int?, _ limit: Int) throws {
        guard let value, !(1...limit ~= value) else { return }
        throw ValidationError("\(option) should be from 1 to \(limit), found \(value)")
    }

    /// An option that would have no effect is a mistake: it is refused rather than ignored.
    private func refuseIdleOptions() throws {
        func require(_ condition: Bool, _ needed: String, _ options: [(name: String, isGiven: Bool)]) throws {
            let idle = options.filter(\.isGiven).map(\.name)
            guard condition || idle.isEmpty else {
                throw ValidationError(
                    "\(idle.joined(separator: " and ")) \(idle.count == 1 ? "needs" : "need") \(needed), or there is no effect")
            }
        }
        let quantizesHeadTo4Bits = quantizeHead.map { $0 != "int8" } ?? false
        try require(loadIn4Bit, "--load-in-4bit", [("--quant-type", quantType != nil)])
        try require(
            loadIn4Bit || quantizesHeadTo4Bits, "--load-in-4bit",
            [("--double-quant", doubleQuant), ("--block-size", blockSize != nil)])
        try require(
            loadIn4Bit || loadIn8Bit, "--load-in-4bit or --load-in-8bit",
            [
                ("--fp32-cpu-offload", fp32CPUOffload), ("--quantize-wo", quantizeWo),
                ("--skip-modules", skipModules.map { !$0.hasPrefix("+") } ?? false),
            ])
        // Without either, the checkpoint may be quantized itself.
        try require(!loadIn4Bit, "--load-in-8bit", [("--int8-threshold", int8Threshold != nil)])
        try require(!loadIn8Bit, "--load-in-4bit", [("--int8-activations", int8Activations)])
    }

    /// Commands that only write a checkpoint place nothing.
    func refusePlacement(in command: String) throws {
        try refuse(
            "have no effect in \(command)",
            [
                ("--device-map", deviceMap != "auto"), ("--max-memory", maxMemory != nil),
                ("--offload-folder", offloadFolder != nil),
                ("--planner", planner != .nibble), ("--cache-bits", cacheBits != nil), ("--context", context != nil),
                ("--batch-size", batchSize != nil), ("--quantize-head", quantizeHead != nil),
                ("--quantize-wo", quantizeWo), ("--int8-activations", int8Activations), ("--batch-invariant", batchInvariant),
            ])
    }

    /// Tensors without a model have no names to skip and no dtype to be loaded in.
    func refuseModelOptions(for input: String) throws {
        try refuse(
            "have no effect on \(input)",
            [
                ("--skip-modules", skipModules != nil), ("--dtype", dtype != "auto"), ("--compute-dtype", computeDtype != nil),
                ("--int8-threshold", int8Threshold != nil), ("--fp32-cpu-offload", fp32CPUOffload), ("--variant", variant != nil),
                ("--gguf-file", ggufFile != nil),
                ("--revision", revision != nil),
            ])
    }

    private func refuse(_ reason: String, _ options: [(name: String, isGiven: Bool)]) throws {
        let given = options.filter(\.isGiven).map(\.name)
        guard given.isEmpty else { throw ValidationError("\(given.joined(separator: " and ")) \(reason)") }
    }

    func configuration() throws -> LoadConfiguration {
        var configuration = LoadConfiguration()
        configuration.quantization = try quantization()
        configuration.dtype = try floatDType(dtype == "auto" ? nil : dtype, "--dtype", "auto, ")
        configuration.computeDType = try floatDType(computeDtype, "--compute-dtype")
        configuration.int8Threshold = int8Threshold
        if let skipModules, skipModules.hasPrefix("+") { configuration.addedSkipModules = names(skipModules.dropFirst()) }
        configuration.headFormat = try headFormat()
        configuration.quantizesFloat32Modules = quantizeWo
        configuration.int8Activations = int8Activations
        configuration.batchInvariant = batchInvariant
        configuration.followsReference = referenceBehaviour
        (configuration.deviceMap, configuration.maxMemory) = try placement()
        configuration.usesReferencePlanner = planner == .reference
        configuration.offloadFolder = offloadFolder.map { URL(filePath: $0) }
        configuration.cacheQuantization = try cacheQuantization()
        configuration.context = context
        configuration.batchSize = batchSize ?? 1
        configuration.revision = revision
        configuration.variant = variant
        configuration.ggufFile = ggufFile
        configuration.threads = threads
        report(to: &configuration)
        return configuration
    }

    /// The configuration of a model that is used with adapters.
    func configuration(_ adapters: AdapterOptionsGroup) throws -> LoadConfiguration {
        var configuration = try configuration()
        configuration.adapters = try adapters.references()
        return configuration
    }

    /// A model that drafts for another: in the dtype and with the threads of that one, not quantized.
    func draftModel(_ name: String?) async throws -> PretrainedModel? {
        guard let name else { return nil }
        var configuration = LoadConfiguration()
        configuration.dtype = try self.configuration().dtype
        configuration.threads = threads
        report(to: &configuration)
        return try await AutoModel.from(pretrained: name, configuration: configuration)
    }

    /// Shows on standard error how downloads and loading get on, unless it is to be quiet.
    private func report(to configuration: inout LoadConfiguration) {
        guard !quiet else { return }
        configuration.notice = { Console.error("warning: \($0)") }
        guard ProgressBar.isUseful else { return }
        let loading = ProgressBar("Loading")
        configuration.progress = { loading.show($0.bytes, of: $0.totalBytes) }
        guard HubConfiguration.standard.showsProgress else { return }
        let downloading = ProgressBar("Downloading")
        configuration.downloadProgress = { downloading.show($0.bytes, of: $0.totalBytes) }
    }

    private func placement() throws -> (DeviceMapRequest, [Device: MemoryLimit]) {
        (try usage("--device-map") { try deviceMapRequest() }, try usage("--max-memory") { try memoryLimits() })
    }

    private func memoryLimits() throws -> [Device: MemoryLimit] { try maxMemory.map(MemoryLimit.limits(parsing:)) ?? [:] }

    /// Errors of an option's value are wrong usage, and name the option.
    private func usage<Value>(_ option: String, _ body: () throws -> Value) throws -> Value {
        do { return try body() } catch {
            let text = "\(error)"
            throw ValidationError(text.hasPrefix(option) ? text : "\(option): \(text)")
        }
    }

    private func deviceMapRequest() throws -> DeviceMapRequest {
        if deviceMap.hasSuffix(".json") {
            return .explicit(try DeviceMap(json: JSONValue(contentsOf: URL(filePath: deviceMap)), source: deviceMap))
        }
        return try DeviceMapRequest(parsing: deviceMap, source: "--device-map")
    }

    /// The entries of a list, without the spaces around them.
    private func names(_ text: Substring) -> [String] {
        text.split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty }
    }

    private func codebook(_ word: String, _ option: String) throws -> FourBitFormat.Codebook {
        guard let codebook = FourBitFormat.Codebook(rawValue: word), codebook != .mxfp4 else {
            throw ValidationError("\(option) should be fp4 or nf4, found \"\(word)\"")
        }
        return codebook
    }

    private func quantization() throws -> BitsAndBytesConfig? {
        let quantType = try codebook(quantType ?? "fp4", "--quant-type")
        guard loadIn4Bit || loadIn8Bit else { return nil }
        let config = BitsAndBytesConfig(
            loadIn8Bit: loadIn8Bit, loadIn4Bit: loadIn4Bit, int8Threshold: int8Threshold ?? BitsAndBytesConfig.defaultThreshold,
            int8SkipModules: skipModules.flatMap { $0.hasPrefix("+") ? nil : names($0[...]) },
            int8EnableFP32CPUOffload: fp32CPUOffload, computeDType: try floatDType(computeDtype, "--compute-dtype"),
            quantType: quantType, useDoubleQuant: doubleQuant,
            blockSize: blockSize ?? FourBitFormat.defaultBlockSize)
        do { try config.validate() } catch {
            throw ValidationError("\(error)".replacing(#/^block size/#, with: "--block-size"))
        }
        return config
    }

    private func floatDType(_ word: String?, _ option: String, _ others: String = "") throws -> DType? {
        guard let word else { return nil }
        guard let dtype = DType(name: word), [.float32, .float16, .bfloat16].contains(dtype) else {
            throw ValidationError("\(option) should be \(others)float32, float16 or bfloat16, found \"\(word)\"")
        }
        return dtype
    }

    private func cacheQuantization() throws -> KeyValueQuantization? {
        try cacheBits.map { bits in
            guard let quantization = KeyValueQuantization(bits: bits) else {
                throw ValidationError("--cache-bits should be 8, 4 or 2, found \(bits)")
            }
            return quantization
        }
    }

    private func headFormat() throws -> WeightFormat? {
        guard let quantizeHead else { return nil }
        if quantizeHead == "int8" { return .int8 }
        guard let codebook = FourBitFormat.Codebook(rawValue: quantizeHead), codebook != .mxfp4 else {
            throw ValidationError("--quantize-head should be int8, nf4 or fp4, found \"\(quantizeHead)\"")
        }
        return .fourBit(
            FourBitFormat(codebook: codebook, blockSize: blockSize ?? FourBitFormat.defaultBlockSize, isNested: doubleQuant))
    }
}

/// The values of `--planner`.
enum PlannerWord: String, ExpressibleByArgument, CaseIterable {
    case nibble, reference
}
