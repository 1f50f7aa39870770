import Nibble
import NibbleGeneration

/// The names of generation options on the command line and in a chat, for messages that use GenerationConfig's own.
enum OptionNames {
    /// ``GenerationConfig``'s fields that no option sets.
    private static let fieldsWithoutOption: Set<String> = [
        "use_cache", "cache_implementation", "cache_config", "sequence_bias", "exponential_decay_length_penalty", "bos_token_id",
        "decoder_start_token_id", "output_scores", "output_logits", "return_dict_in_generate", "penalty_alpha", "num_beam_groups",
        "diversity_penalty", "constraints", "force_words_ids", "dola_layers", "watermarking_config", "assistant_early_exit",
    ]

    private static let renamed = ["stop_strings": "--stop", "bad_words_ids": "--bad-words"]

    /// By field name: `max_new_tokens` → `--max-new-tokens`.
    static let options: [String: String] = Dictionary(
        uniqueKeysWithValues: GenerationConfig.fieldNames.filter { !fieldsWithoutOption.contains($0) }.map { field in
            (field, renamed[field] ?? "--" + dashed(field))
        })

    static func onCommandLine(_ text: String) -> String { renaming(text) { options[$0] } }

    /// As `/set` takes them: `max-new-tokens`.
    static func inChat(_ text: String) -> String {
        renaming(text) { field in options[field].map { String($0.dropFirst(2)) } }
    }

    static func dashed(_ field: String) -> String { field.split(separator: "_").joined(separator: "-") }

    /// Replaces field names. Those that are words of prose too (`temperature`) are names where they stand in backticks.
    private static func renaming(_ text: String, _ name: (String) -> String?) -> String {
        text.replacing(#/`([a-z0-9_]+)`|[a-z0-9]+_[a-z0-9_]+/#) { match in
            name(String(match.1 ?? match.0)) ?? String(match.0)
        }
    }
}
