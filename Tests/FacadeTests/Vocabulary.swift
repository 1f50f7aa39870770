import Nibble

/// Every public type, as a program writes it that imports nothing but Nibble.
enum Vocabulary {
    static let types: [Any.Type] =
        loading + placement + generation + serving + tokenizing + pipelines + [
            DType.self, Device.self, Shape.self, Tensor.self, WeightFormat.self, FourBitFormat.self, FourBitFormat.Codebook.self,
            KeyValueQuantization.self,
        ]

    static let loading: [Any.Type] = [
        AutoModel.self, AutoModelForCausalLM.self, AutoModelForSeq2SeqLM.self, AutoTokenizer.self, LoadConfiguration.self,
        BitsAndBytesConfig.self, PretrainedModel.self, LoaderOptions.self, LoadProgress.self, LoadReport.self,
        HubConfiguration.self,
        HubRepository.self, DownloadProgress.self, CheckpointExport.self, ForwardOutput.self, PerplexityScore.self,
    ]

    static let placement: [Any.Type] = [
        DeviceMap.self, DeviceMapRequest.self, MemoryLimit.self, LoadPreview.self, PlacementPlan.self, PlacementPlan.Planner.self,
        PlacementPlan.DeviceMemory.self, PlacementPlan.ModuleRange.self,
    ]

    static let generation: [Any.Type] = [
        GenerationConfig.self, EarlyStopping.self, CacheImplementation.self, AssistantSchedule.self, SequenceBias.self,
        ExponentialDecay.self, QuantizedCacheConfig.self, GenerationWarning.self, GenerationOutput.self, GeneratedToken.self,
        GenerationRequest.self, GenerationGrammar.self, PrefixAllowedTokens.self, (any LogitsProcessor).self, DeviceForm.self,
        RowContext.self,
        StoppingCriterion.self, FinishReason.self, GenerationEvent.self, LogitsBatch.self,
    ]

    static let serving: [Any.Type] = [
        Engine.self, EngineConfiguration.self, EngineRequest.self, EngineEvent.self, TokenScore.self,
    ]

    static let tokenizing: [Any.Type] = [
        Tokenizer.self, TokenStreamDecoder.self, Encoding.self, PaddingSide.self, Padding.self, Truncation.self,
        BatchEncoding.self, SpecialTokens.self, SpecialTokens.Token.self, ChatMessage.self, ChatPrompt.self, JinjaValue.self,
        JinjaObject.self, BigInteger.self, JinjaArray.self, JinjaUndefined.self, JinjaOpaque.self,
    ]

    static let pipelines: [Any.Type] = [
        (any TextPipeline).self, PipelineTask<TextGenerationPipeline>.self, TextGenerationPipeline.self,
        TextGenerationPipeline.Options.self, TextGenerationPipeline.Options.Returned.self,
        TextGenerationPipeline.Options.LongGeneration.self, Text2TextGenerationPipeline.self,
        Text2TextGenerationPipeline.Options.self, GeneratedText.self, ChatSession.self, ChatAnswer.self,
    ]

    /// Errors with what a program does that catches them by name.
    static let errors: [any Error] = [
        AutoModelError.noSuchFolder("model"),
        BackendError.nonFiniteWeight(index: 1),
        CUDAUnavailable.noDevice,
        ChatTemplateError.noTemplate,
        CheckpointError.unreadable(file: "model.safetensors", reason: "missing"),
        DeviceMapError.unknownWord("everywhere"),
        EngineError.emptyPrompt,
        ForwardError.decoderInputsMissing,
        GenerationError.emptyRow(row: 0),
        GrammarError.unsatisfiable(path: "#"),
        HubError.invalidEndpoint("hub"),
        JSONError.unreadable(file: "config.json", reason: "missing"),
        LoadError.noConfig(folder: "model"),
        ModelError.encoderInputsMissing,
        PipelineError.emptyChat,
        QuantizationConfigError.bothLoads,
        SessionError.rowOutOfRange(row: 1, rows: 1),
        TokenizerError.noPaddingToken,
    ]

    /// The name under which an error is caught; `nil` for one that no clause names.
    static func name(catching error: any Error) -> String? {
        do {
            throw error
        } catch let error as AutoModelError {
            return name(error)
        } catch let error as BackendError {
            return name(error)
        } catch let error as CUDAUnavailable {
            return name(error)
        } catch let error as ChatTemplateError {
            return name(error)
        } catch let error as CheckpointError {
            return name(error)
        } catch let error as DeviceMapError {
            return name(error)
        } catch let error as FileError {
            return name(error)
        } catch let error as ForwardError {
            return name(error)
        } catch let error as EngineError {
            return name(error)
        } catch let error as GenerationError {
            return name(error)
        } catch let error as GrammarError {
            return name(error)
        } catch let error as HubError {
            return name(error)
        } catch let error as JSONError {
            return name(error)
        } catch let error as JinjaError {
            return name(error)
        } catch let error as KernelCompilationError {
            return name(error)
        } catch let error as LoadError {
            return name(error)
        } catch let error as MemoryLimitError {
            return name(error)
        } catch let error as ModelError {
            return name(error)
        } catch let error as PipelineError {
            return name(error)
        } catch let error as QuantStateError {
            return name(error)
        } catch let error as QuantizationConfigError {
            return name(error)
        } catch let error as SessionError {
            return name(error)
        } catch let error as TokenizerError {
            return name(error)
        } catch { return nil }
    }

    private static func name<Failure: Error & CustomStringConvertible>(_ error: Failure) -> String { "\(Failure.self)" }
}
