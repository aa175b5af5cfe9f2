// One of a few, with its name beside it.
interface Props<T extends string | number> {
  label: string;
  value: T;
  options: readonly (readonly [T, string])[];
  onChange: (value: T) => void;
  testId: string;
}

export function Choice<T extends string | number>({ label, value, options, onChange, testId }: Props<T>) {
  return (
    <label className="choice">
      {label}
      <select
        value={value}
        onChange={({ target }) => {
          const found = options.find(([option]) => String(option) === target.value);
          if (found) onChange(found[0]);
        }}
        className="field"
        data-testid={testId}
      >
        {options.map(([option, name]) => (
          <option key={option} value={option}>
            {name}
          </option>
        ))}
      </select>
    </label>
  );
}
