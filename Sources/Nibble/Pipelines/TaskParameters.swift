import Foundation
import NibbleCore
import NibbleGeneration

/// The settings of a task in config.json: `prefix`, and `task_specific_params` under the task's name.
struct TaskParameters {
    var prefix: String?
    var generation = GenerationConfig()

    /// - Parameter task: `summarization`, `translation_en_to_de` …
    init(model: PretrainedModel, task: String? = nil) throws {
        let file = model.folder.appending(path: "config.json")
        guard FileManager.default.fileExists(atPath: file.path) else { return }
        let config = try JSONValue(contentsOf: file)
        prefix = config["prefix"]?.string
        guard let task, let parameters = config["task_specific_params"]?[task], !parameters.isNull else { return }
        if let text = parameters["prefix"]?.string { prefix = text }
        generation = try GenerationConfig(modelFile: parameters, source: "\(file.path), task_specific_params.\(task)")
    }
}
